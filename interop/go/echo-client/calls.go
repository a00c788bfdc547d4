package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"evenkeel/interop/echopb"

	"google.golang.org/grpc"
)

func unary(ctx context.Context, client echopb.EchoClient) error {
	return echoes(ctx, client, []byte("payload"))
}

func large(ctx context.Context, client echopb.EchoClient) error {
	return echoes(ctx, client, bytes.Repeat([]byte("0123456789abcdef"), 2<<20))
}

func echoes(ctx context.Context, client echopb.EchoClient, payload []byte) error {
	reply, err := client.Unary(ctx, &echopb.EchoRequest{Message: "hello", Payload: payload})
	if err != nil {
		return err
	}
	if reply.Message != "hello" || !bytes.Equal(reply.Payload, payload) {
		return fmt.Errorf("got back %q and %d bytes, sent hello and %d", reply.Message, len(reply.Payload), len(payload))
	}
	return nil
}

func clientStream(ctx context.Context, client echopb.EchoClient) error {
	stream, err := client.ClientStream(ctx)
	if err != nil {
		return err
	}
	for _, message := range []string{"a", "b", "c"} {
		if err := stream.Send(&echopb.EchoRequest{Message: message}); err != nil {
			return err
		}
	}
	reply, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	return want("reply", reply.Message, "a,b,c")
}

func serverStream(ctx context.Context, client echopb.EchoClient) error {
	stream, err := client.ServerStream(ctx, &echopb.EchoRequest{Message: "again", Repeat: 5})
	if err != nil {
		return err
	}
	messages, err := drain(stream)
	if !errors.Is(err, io.EOF) {
		return err
	}
	return want("replies", fmt.Sprint(messages), "[again again again again again]")
}

func bidiStream(ctx context.Context, client echopb.EchoClient) error {
	stream, err := client.BidiStream(ctx)
	if err != nil {
		return err
	}
	for _, message := range []string{"ping", "pong", "end"} {
		if err := stream.Send(&echopb.EchoRequest{Message: message}); err != nil {
			return err
		}
		reply, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := want("reply", reply.Message, message); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ended with %v, not OK", err)
	}
	return nil
}

// slowReader stalls a server stream of 400 MiB after its first reply, then reads it slowly.
func slowReader(ctx context.Context, client echopb.EchoClient) error {
	const count = 400
	request := &echopb.EchoRequest{Payload: make([]byte, 1<<20), Repeat: count}
	stream, err := client.ServerStream(ctx, request)
	if err != nil {
		return err
	}
	for received := range count {
		if _, err := stream.Recv(); err != nil {
			return fmt.Errorf("after %d replies: %w", received, err)
		}
		if received == 0 {
			time.Sleep(1500 * time.Millisecond)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ended with %v, not OK", err)
	}
	return nil
}

// slowBackend sends 200 MiB to a backend that stalls at the first message, then reads slowly.
func slowBackend(ctx context.Context, client echopb.EchoClient) error {
	stream, err := client.ClientStream(ctx)
	if err != nil {
		return err
	}
	for sent := range 200 {
		request := &echopb.EchoRequest{Payload: make([]byte, 1<<20), DelayMs: 5}
		if sent == 0 {
			request.DelayMs = 1500
		}
		if err := stream.Send(request); err != nil {
			return fmt.Errorf("after %d messages: %w", sent, err)
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// spread counts which backend answers each of 300 unary calls, once calls of another method have reached all three.
func spread(ctx context.Context, client echopb.EchoClient) (map[string]int, error) {
	if err := reachAll(ctx, client, 3); err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for range 300 {
		reply, err := client.Unary(ctx, &echopb.EchoRequest{Message: "spread"})
		if err != nil {
			return counts, err
		}
		counts[reply.Backend]++
	}
	return counts, nil
}

// reachAll makes calls until so many backends have answered.
func reachAll(ctx context.Context, client echopb.EchoClient, backends int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reached := map[string]bool{}
	for len(reached) < backends {
		stream, err := client.ServerStream(ctx, &echopb.EchoRequest{Repeat: 1}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		reply, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("only %v could be reached: %w", reached, err)
		}
		reached[reply.Backend] = true
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

func drain(stream grpc.ServerStreamingClient[echopb.EchoReply]) ([]string, error) {
	var messages []string
	for {
		reply, err := stream.Recv()
		if err != nil {
			return messages, err
		}
		messages = append(messages, reply.Message)
	}
}

func want(what, got, wanted string) error {
	if got != wanted {
		return fmt.Errorf("%s: got %q, want %q", what, got, wanted)
	}
	return nil
}
