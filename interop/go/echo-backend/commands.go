package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const echoService = "evenkeel.demo.v1.Echo"

// obey answers each command with one line of JSON, and ends the process with its input.
func obey(input io.Reader, echo *echoServer, healthServer *health.Server) {
	commands := bufio.NewScanner(input)
	for commands.Scan() {
		answer, err := json.Marshal(obeyOne(commands.Text(), echo, healthServer))
		if err != nil {
			log.Fatalf("cannot answer %q: %v", commands.Text(), err)
		}
		fmt.Println(string(answer))
	}
	os.Exit(0)
}

func obeyOne(command string, echo *echoServer, healthServer *health.Server) any {
	switch command {
	case "serving":
		return setHealth(healthServer, healthpb.HealthCheckResponse_SERVING)
	case "not_serving":
		return setHealth(healthServer, healthpb.HealthCheckResponse_NOT_SERVING)
	case "stats":
		return echo.stats()
	case "calls":
		return echo.arrivals()
	default:
		return map[string]string{"error": "unknown command " + command}
	}
}

func setHealth(server *health.Server, status healthpb.HealthCheckResponse_ServingStatus) map[string]string {
	server.SetServingStatus("", status)
	server.SetServingStatus(echoService, status)
	return map[string]string{"status": status.String()}
}
