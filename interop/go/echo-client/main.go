// Command echo-client is the grpc-go peer that calls evenkeel.demo.v1.Echo.
//
// It runs the cases it is given, in order, over one channel, and prints a line of JSON for each:
// {"case": …, "error": … or "", "counts": …}. README.md says what each case proves.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"time"

	"evenkeel/interop/dial"
	"evenkeel/interop/echopb"
)

type testCase func(context.Context, echopb.EchoClient) error

var cases = map[string]testCase{
	"unary":                unary,
	"client_stream":        clientStream,
	"server_stream":        serverStream,
	"bidi_stream":          bidiStream,
	"metadata":             metadataBothWays,
	"repeated_metadata":    repeatedMetadata,
	"trailers_only":        trailersOnly,
	"error_after_messages": errorAfterMessages,
	"status_details":       statusDetails,
	"deadline":             deadline,
	"cancel":               cancelled,
	"large":                large,
	"slow_reader":          slowReader,
	"slow_backend":         slowBackend,
	"in_flight":            inFlight,
}

type result struct {
	Case   string         `json:"case"`
	Error  string         `json:"error"`
	Counts map[string]int `json:"counts,omitempty"`
}

func main() {
	target := flag.String("target", "", "comma-separated addresses")
	serviceConfig := flag.String("service-config", "", "service config, JSON")
	flag.Parse()

	connection, err := dial.Open(*target, *serviceConfig)
	if err != nil {
		log.Fatal(err)
	}
	client := echopb.NewEchoClient(connection)
	for _, name := range flag.Args() {
		line, err := json.Marshal(run(name, client))
		if err != nil {
			log.Fatalf("cannot print the result of %s: %v", name, err)
		}
		fmt.Println(string(line))
	}
}

func run(name string, client echopb.EchoClient) result {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	outcome := result{Case: name}
	var err error
	if name == "spread" {
		outcome.Counts, err = spread(ctx, client)
	} else if testCase, known := cases[name]; known {
		err = testCase(ctx, client)
	} else {
		err = fmt.Errorf("no case is called %q", name)
	}
	if err != nil {
		outcome.Error = err.Error()
	}
	return outcome
}
