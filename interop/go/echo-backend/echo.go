package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strconv"
	"strings"
	"sync"
	"time"

	"evenkeel/interop/echopb"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

type echoServer struct {
	echopb.UnimplementedEchoServer
	name string

	mu        sync.Mutex
	calls     int
	cancelled int
	messages  []string
}

func (s *echoServer) Unary(ctx context.Context, request *echopb.EchoRequest) (*echopb.EchoReply, error) {
	s.arrived(request.Message)
	// The pause comes first: initial metadata would commit the call, and no client could retry it.
	if err := s.pause(ctx, request); err != nil {
		return nil, err
	}
	if err := s.open(ctx, request, 0); err != nil {
		return nil, err
	}
	return s.reply(request), nil
}

func (s *echoServer) ClientStream(stream grpc.ClientStreamingServer[echopb.EchoRequest, echopb.EchoReply]) error {
	ctx := stream.Context()
	s.arrived("")
	var messages []string
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(s.reply(&echopb.EchoRequest{Message: strings.Join(messages, ",")}))
		}
		if err != nil {
			return s.ended(err)
		}
		if len(messages) == 0 {
			if err := s.open(ctx, request, 0); err != nil {
				return err
			}
		}
		messages = append(messages, request.Message)
		if err := s.pause(ctx, request); err != nil {
			return err
		}
	}
}

func (s *echoServer) ServerStream(request *echopb.EchoRequest, stream grpc.ServerStreamingServer[echopb.EchoReply]) error {
	ctx := stream.Context()
	s.arrived(request.Message)
	for sent := range request.Repeat {
		if err := s.open(ctx, request, int(sent)); err != nil {
			return err
		}
		if err := s.pause(ctx, request); err != nil {
			return err
		}
		if err := stream.Send(s.reply(request)); err != nil {
			return s.ended(err)
		}
	}
	return s.open(ctx, request, int(request.Repeat))
}

func (s *echoServer) BidiStream(stream grpc.BidiStreamingServer[echopb.EchoRequest, echopb.EchoReply]) error {
	ctx := stream.Context()
	s.arrived("")
	sent := 0
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.ended(err)
		}
		for range max(request.Repeat, 1) {
			if err := s.open(ctx, request, sent); err != nil {
				return err
			}
			if err := s.pause(ctx, request); err != nil {
				return err
			}
			if err := stream.Send(s.reply(request)); err != nil {
				return s.ended(err)
			}
			sent++
		}
	}
}

// open fails the call if its metadata asks for that after `sent` replies, and otherwise sends the
// initial metadata before the first.
func (s *echoServer) open(ctx context.Context, request *echopb.EchoRequest, sent int) error {
	incoming, _ := metadata.FromIncomingContext(ctx)
	echoed := metadata.MD{}
	for key, values := range incoming {
		if strings.HasPrefix(key, "x-echo-") {
			echoed[key] = values
		}
	}
	if code := number(incoming, "x-fail-code"); code != 0 && sent >= number(incoming, "x-fail-after") {
		if err := grpc.SetTrailer(ctx, echoed); err != nil {
			return err
		}
		return failure(code, request.Message, incoming.Get("x-fail-details-bin"))
	}
	if sent > 0 {
		return nil
	}
	initial := metadata.Join(echoed, metadata.Pairs("x-backend", s.name))
	if deadline, ok := ctx.Deadline(); ok {
		initial.Set("x-deadline-ms", strconv.FormatInt(time.Until(deadline).Milliseconds(), 10))
	}
	return errors.Join(grpc.SetTrailer(ctx, echoed), grpc.SendHeader(ctx, initial))
}

func failure(code int, message string, details []string) error {
	if len(details) == 0 {
		return status.Error(codes.Code(code), message)
	}
	var detailed statuspb.Status
	if err := proto.Unmarshal([]byte(details[0]), &detailed); err != nil {
		return fmt.Errorf("x-fail-details-bin is no google.rpc.Status: %w", err)
	}
	return status.FromProto(&detailed).Err()
}

func (s *echoServer) pause(ctx context.Context, request *echopb.EchoRequest) error {
	if request.DelayMs == 0 {
		return nil
	}
	select {
	case <-time.After(time.Duration(request.DelayMs) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return s.ended(status.FromContextError(ctx.Err()).Err())
	}
}

func (s *echoServer) reply(request *echopb.EchoRequest) *echopb.EchoReply {
	return &echopb.EchoReply{Message: request.Message, Payload: request.Payload, Backend: s.name}
}

func (s *echoServer) arrived(message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if message != "" {
		s.messages = append(s.messages, message)
	}
}

// ended counts the calls that their clients gave up, and passes the error on.
func (s *echoServer) ended(err error) error {
	if status.Code(err) == codes.Canceled {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cancelled++
	}
	return err
}

func (s *echoServer) stats() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]int{"calls": s.calls, "cancelled": s.cancelled}
}

// arrivals lists the messages of the calls received, in order.
func (s *echoServer) arrivals() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.messages...)
}

func number(md metadata.MD, key string) int {
	values := md.Get(key)
	if len(values) == 0 {
		return 0
	}
	n, err := strconv.Atoi(values[0])
	if err != nil {
		log.Fatalf("the request's %s is no number: %v", key, err)
	}
	return n
}
