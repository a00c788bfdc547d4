package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"evenkeel/interop/echopb"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const oddMessage = "naïve ☃ 100% 😈\n\tend"

// echoed holds duplicates, an order that sorting would break, commas, and bytes that are no text.
var echoed = metadata.MD{
	"x-echo-text":     {"one", "two", "one", "a, b;c"},
	"x-echo-other":    {strings.Repeat("v", 2000)},
	"x-echo-data-bin": {"\x00\xff\x80,", "second", "\x00\xff\x80,"},
}

func metadataBothWays(ctx context.Context, client echopb.EchoClient) error {
	ctx = metadata.NewOutgoingContext(ctx, echoed)
	var header, trailer metadata.MD
	request := &echopb.EchoRequest{Message: "m", Repeat: 1}
	if _, err := client.Unary(ctx, request, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		return err
	}
	if err := errors.Join(sameEchoes("unary initial", header), sameEchoes("unary trailing", trailer)); err != nil {
		return err
	}
	stream, err := client.ServerStream(ctx, request)
	if err != nil {
		return err
	}
	if _, err := drain(stream); !errors.Is(err, io.EOF) {
		return err
	}
	header, err = stream.Header()
	if err != nil {
		return err
	}
	return errors.Join(sameEchoes("stream initial", header), sameEchoes("stream trailing", stream.Trailer()))
}

// sameEchoes takes joined text values for repeated ones: gRPC calls them equivalent, and Node's HTTP/2 joins them.
// repeatedMetadata sees them apart.
func sameEchoes(where string, got metadata.MD) error {
	for key, values := range echoed {
		compare := sameValues
		if !strings.HasSuffix(key, "-bin") {
			compare = sameJoined
		}
		if err := compare(where+" metadata "+key, got.Get(key), values); err != nil {
			return err
		}
	}
	return nil
}

func sameValues(what string, got, wanted []string) error {
	return want(what, fmt.Sprintf("%q", got), fmt.Sprintf("%q", wanted))
}

func sameJoined(what string, got, wanted []string) error {
	return want(what, strings.Join(got, ", "), strings.Join(wanted, ", "))
}

func repeatedMetadata(ctx context.Context, client echopb.EchoClient) error {
	ctx = metadata.NewOutgoingContext(ctx, echoed)
	var header, trailer metadata.MD
	if _, err := client.Unary(ctx, &echopb.EchoRequest{Message: "m"}, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		return err
	}
	const key = "x-echo-text"
	return errors.Join(
		sameValues("initial metadata", header.Get(key), echoed[key]),
		sameValues("trailing metadata", trailer.Get(key), echoed[key]))
}

func trailersOnly(ctx context.Context, client echopb.EchoClient) error {
	ctx = metadata.NewOutgoingContext(ctx, metadata.Join(echoed, metadata.Pairs("x-fail-code", "9")))
	var header, trailer metadata.MD
	_, err := client.Unary(ctx, &echopb.EchoRequest{Message: oddMessage}, grpc.Header(&header), grpc.Trailer(&trailer))
	if err := failed(err, codes.FailedPrecondition, oddMessage); err != nil {
		return err
	}
	if len(header.Get("x-backend")) != 0 {
		return fmt.Errorf("a failure without initial metadata came with %v", header)
	}
	return sameEchoes("trailing", trailer)
}

func errorAfterMessages(ctx context.Context, client echopb.EchoClient) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-fail-code", "15", "x-fail-after", "2")
	stream, err := client.ServerStream(ctx, &echopb.EchoRequest{Message: oddMessage, Repeat: 5})
	if err != nil {
		return err
	}
	messages, err := drain(stream)
	if len(messages) != 2 {
		return fmt.Errorf("got %d replies before the failure, want 2", len(messages))
	}
	return failed(err, codes.DataLoss, oddMessage)
}

func statusDetails(ctx context.Context, client echopb.EchoClient) error {
	detail, err := anypb.New(&errdetails.ErrorInfo{Reason: "OUT_OF_CHEESE", Domain: "example.test"})
	if err != nil {
		return err
	}
	sent := &statuspb.Status{Code: int32(codes.FailedPrecondition), Message: "no cheese", Details: []*anypb.Any{detail}}
	encoded, err := proto.Marshal(sent)
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "x-fail-code", "9", "x-fail-details-bin", string(encoded))
	_, err = client.Unary(ctx, &echopb.EchoRequest{Message: "no cheese"})
	if got := status.Convert(err).Proto(); !proto.Equal(got, sent) {
		return fmt.Errorf("got status %v, want %v", got, sent)
	}
	return nil
}

func deadline(ctx context.Context, client echopb.EchoClient) error {
	var header metadata.MD
	seen, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := client.Unary(seen, &echopb.EchoRequest{Message: "m"}, grpc.Header(&header)); err != nil {
		return err
	}
	left, err := strconv.Atoi(strings.Join(header.Get("x-deadline-ms"), ""))
	if err != nil || left <= 0 || left > 10_000 {
		return fmt.Errorf("the backend saw the deadline as %v ms, want 1 to 10000", header.Get("x-deadline-ms"))
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = client.Unary(short, &echopb.EchoRequest{Message: "m", DelayMs: 20_000})
	if status.Code(err) != codes.DeadlineExceeded {
		return fmt.Errorf("got %v, want DEADLINE_EXCEEDED", err)
	}
	return nil
}

// cancelled gives up a waiting server stream and an open bidirectional one. The runner asks the backend
// whether it noticed both.
func cancelled(ctx context.Context, client echopb.EchoClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting, err := client.ServerStream(ctx, &echopb.EchoRequest{Message: "m", Repeat: 1, DelayMs: 60_000})
	if err != nil {
		return err
	}
	if _, err := waiting.Header(); err != nil {
		return err
	}
	open, err := client.BidiStream(ctx)
	if err != nil {
		return err
	}
	if err := open.Send(&echopb.EchoRequest{Message: "m"}); err != nil {
		return err
	}
	if _, err := open.Recv(); err != nil {
		return err
	}
	cancel()
	_, waitingError := waiting.Recv()
	_, openError := open.Recv()
	if status.Code(waitingError) != codes.Canceled || status.Code(openError) != codes.Canceled {
		return fmt.Errorf("got %v and %v, want CANCELLED twice", waitingError, openError)
	}
	return nil
}

// inFlight holds ten unary calls and a stream open, says so, and wants every one of them to end well.
func inFlight(ctx context.Context, client echopb.EchoClient) error {
	stream, err := client.ServerStream(ctx, &echopb.EchoRequest{Message: "m", Repeat: 20, DelayMs: 100})
	if err != nil {
		return err
	}
	endings := make(chan error)
	for range 10 {
		go func() {
			_, err := client.Unary(ctx, &echopb.EchoRequest{Message: "m", DelayMs: 2000})
			endings <- err
		}()
	}
	if _, err := stream.Header(); err != nil {
		return err
	}
	// The ten are on the wire by then: they need no answer to be so.
	time.Sleep(300 * time.Millisecond)
	fmt.Println("started")
	messages, streamError := drain(stream)
	if len(messages) != 20 || !errors.Is(streamError, io.EOF) {
		err = fmt.Errorf("the stream ended after %d of 20 replies with %w", len(messages), streamError)
	}
	for range 10 {
		err = errors.Join(err, <-endings)
	}
	return err
}

func failed(err error, code codes.Code, message string) error {
	if status.Code(err) != code {
		return fmt.Errorf("got %v, want %v", err, code)
	}
	return want("status message", status.Convert(err).Message(), message)
}
