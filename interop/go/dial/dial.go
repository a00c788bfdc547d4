// Package dial opens the grpc-go channels that the clients of this module use.
package dial

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/leastrequest" // registers least_request_experimental
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // registers the client side of health checking
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// MaxMessage is the largest message, in bytes, that clients and backends take.
const MaxMessage = 64 << 20

// Open makes a plaintext channel to the comma-separated addresses of target.
// A non-empty serviceConfig (JSON) chooses how calls are spread and retried.
func Open(target, serviceConfig string) (*grpc.ClientConn, error) {
	addresses := manual.NewBuilderWithScheme("peers")
	var state resolver.State
	for address := range strings.SplitSeq(target, ",") {
		endpoint := resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}}
		state.Endpoints = append(state.Endpoints, endpoint)
	}
	addresses.InitialState(state)
	options := []grpc.DialOption{
		grpc.WithResolvers(addresses),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
	}
	if serviceConfig != "" {
		options = append(options, grpc.WithDefaultServiceConfig(serviceConfig))
	}
	connection, err := grpc.NewClient("peers:///interop", options...)
	if err != nil {
		return nil, fmt.Errorf("cannot open a channel to %s: %w", target, err)
	}
	return connection, nil
}
