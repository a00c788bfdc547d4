// Command echo-backend is the grpc-go peer that serves evenkeel.demo.v1.Echo, grpc.health.v1 and grpc.testing.
//
// It prints `listening on ADDRESS`, obeys the commands that README.md lists on its standard input,
// drains on SIGTERM and ends when its standard input closes.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"evenkeel/interop/dial"
	"evenkeel/interop/echopb"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to serve on")
	name := flag.String("name", "go", "name that replies carry")
	maxAge := flag.Duration("max-connection-age", 0, "end each connection in good order after this long; 0: never")
	maxStreams := flag.Uint("max-concurrent-streams", 0, "calls that a connection may carry at once; 0: any number")
	flag.Parse()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatalf("cannot listen on %s: %v", *listen, err)
	}
	echo := &echoServer{name: *name}
	healthServer := health.NewServer()
	setHealth(healthServer, healthpb.HealthCheckResponse_SERVING)
	server := grpc.NewServer(options(*maxAge, *maxStreams)...)
	echopb.RegisterEchoServer(server, echo)
	healthpb.RegisterHealthServer(server, healthServer)
	testpb.RegisterTestServiceServer(server, namedTestServer{interop.NewTestServer(), *name})

	go obey(os.Stdin, echo, healthServer)
	go drainOnSignal(server)
	fmt.Printf("listening on %s\n", listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatalf("cannot serve: %v", err)
	}
}

func options(maxAge time.Duration, maxStreams uint) []grpc.ServerOption {
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(dial.MaxMessage), grpc.MaxSendMsgSize(dial.MaxMessage)}
	if maxAge > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: maxAge}))
	}
	if maxStreams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(uint32(maxStreams)))
	}
	return options
}

func drainOnSignal(server *grpc.Server) {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	<-terminate
	server.GracefulStop()
}

// namedTestServer is grpc-go's interop server with the one reply field that it leaves out: who answered.
type namedTestServer struct {
	testpb.TestServiceServer
	name string
}

func (s namedTestServer) UnaryCall(ctx context.Context, request *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	reply, err := s.TestServiceServer.UnaryCall(ctx, request)
	if err == nil && request.FillServerId {
		reply.ServerId = s.name
	}
	return reply, err
}
