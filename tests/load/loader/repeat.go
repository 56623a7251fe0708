package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// routine is a request that a device sends again and again.
type routine struct {
	kind, method, path string
	body               []byte
	status             int
}

// routineOf returns the request of a device in a phase; it is made once.
func (c *client) routineOf(phase string) (routine, error) {
	address := "/api/v1/devices/" + c.device.Name
	switch phase {
	case "polls":
		return routine{"poll", "GET", address + "/update", nil, 204}, nil
	case "beats":
		body, err := json.Marshal(c.heartbeat())
		return routine{"heartbeat", "POST", address + "/health", body, 200}, err
	case "downloads":
		return routine{"download", "GET", c.job.Path, nil, 200}, nil
	}
	return routine{}, fmt.Errorf("no such phase: %q", phase)
}

// repeat lets the devices send one kind of request in turn, for some seconds or once.
func repeat(job *Job, tally *Tally, wires chan *wire) {
	clients := make([]*client, len(job.Devices))
	routines := make([]routine, len(job.Devices))
	for number := range job.Devices {
		clients[number] = newClient(job, tally, wires, &job.Devices[number])
		var err error
		if routines[number], err = clients[number].routineOf(job.Phase); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	// Of whom it is the turn, and since when.
	type turn struct {
		number int
		due    time.Time
	}
	// What is due waits for a connection in an open loop, and is not yet due in a closed.
	waiting := 0
	if job.Rate > 0 {
		waiting = 1 << 20
	}
	turns := make(chan turn, waiting)
	var group sync.WaitGroup
	for number := 0; number < job.Connections; number++ {
		group.Add(1)
		go func() {
			defer group.Done()
			connection := <-wires
			defer func() { wires <- connection }()
			for next := range turns {
				due := next.due
				if due.IsZero() {
					due = time.Now()
				}
				what := routines[next.number]
				status, _ := clients[next.number].timed(
					connection, due, what.kind, what.method, what.path, what.body)
				if status != 0 && status != what.status {
					tally.complain(fmt.Sprintf("%s %d", what.kind, status))
				}
			}
		}()
	}
	started := time.Now()
	end := started.Add(seconds(job.Seconds))
	for count := 0; ; count++ {
		next := turn{number: count % len(clients)}
		if job.Rate > 0 {
			next.due = started.Add(seconds(float64(count) / job.Rate))
			time.Sleep(time.Until(next.due))
		}
		if job.Once && count == len(clients) || !job.Once && !time.Now().Before(end) {
			break
		}
		turns <- next
	}
	close(turns)
	group.Wait()
}
