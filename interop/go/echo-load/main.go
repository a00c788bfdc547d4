// Command echo-load starts unary calls at a fixed rate, whatever becomes of the earlier ones, and writes one
// CSV line for each: number, start (Unix nanoseconds), latency (microseconds), status code, answering backend.
// The number is the call's message too, so that a backend's list of arrivals can be joined to the lines.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"evenkeel/interop/dial"
	"evenkeel/interop/echopb"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

type outcome struct {
	start   time.Time
	latency time.Duration
	code    string
	backend string
}

func main() {
	target := flag.String("target", "", "comma-separated addresses")
	serviceConfig := flag.String("service-config", "", "service config, JSON")
	rate := flag.Int("rate", 1000, "calls started a second")
	duration := flag.Duration("duration", 10*time.Second, "how long to start calls")
	deadline := flag.Duration("deadline", 10*time.Second, "deadline of each call")
	delay := flag.Uint("delay-ms", 0, "time that the backend takes for each call")
	output := flag.String("output", "", "file for the CSV lines")
	flag.Parse()

	connection, err := dial.Open(*target, *serviceConfig)
	if err != nil {
		log.Fatal(err)
	}
	load := loader{echopb.NewEchoClient(connection), *deadline, uint32(*delay)}
	if err := load.warmUp(); err != nil {
		log.Fatalf("cannot reach %s: %v", *target, err)
	}
	fmt.Println("started")
	outcomes := load.run(*rate, *duration)
	if err := write(*output, outcomes); err != nil {
		log.Fatal(err)
	}
}

type loader struct {
	client   echopb.EchoClient
	deadline time.Duration
	delayMs  uint32
}

func (l loader) warmUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), l.deadline)
	defer cancel()
	_, err := l.client.Unary(ctx, &echopb.EchoRequest{}, grpc.WaitForReady(true))
	return err
}

func (l loader) run(rate int, duration time.Duration) []outcome {
	outcomes := make([]outcome, int(duration.Seconds()*float64(rate)))
	period := time.Second / time.Duration(rate)
	begin := time.Now()
	var running sync.WaitGroup
	for i := range outcomes {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * period)))
		running.Go(func() { outcomes[i] = l.call(i) })
	}
	running.Wait()
	return outcomes
}

func (l loader) call(i int) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), l.deadline)
	defer cancel()
	start := time.Now()
	reply, err := l.client.Unary(ctx, &echopb.EchoRequest{Message: strconv.Itoa(i), DelayMs: l.delayMs})
	return outcome{start, time.Since(start), status.Code(err).String(), reply.GetBackend()}
}

func write(path string, outcomes []outcome) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot write the outcomes: %w", err)
	}
	lines := bufio.NewWriter(file)
	for i, o := range outcomes {
		fmt.Fprintf(lines, "%d,%d,%d,%s,%s\n", i, o.start.UnixNano(), o.latency.Microseconds(), o.code, o.backend)
	}
	if err := lines.Flush(); err != nil {
		return err
	}
	return file.Close()
}
