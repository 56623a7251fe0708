// Devices over HTTP: they go through one deployment, from their first login to their last
// proof, or send one kind of request again and again. Reads a job as JSON from standard
// input, writes what was seen as JSON to standard output.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Job says what is to be done.
type Job struct {
	URL                 string   `json:"url"`
	Devices             []Device `json:"devices"`
	Version             string   `json:"version"`
	Checksum            string   `json:"checksum"`
	Connections         int      `json:"connections"`
	AtOnce              int      `json:"atOnce"`
	PollSeconds         float64  `json:"pollSeconds"`
	ConfirmationSeconds float64  `json:"confirmationSeconds"`
	GiveUpSeconds       float64  `json:"giveUpSeconds"`
	// Certificate that the server's is trusted by over https, in PEM.
	Authority string `json:"authority"`
	// "prepare": log in and be heard once. "update": be updated. "polls", "beats",
	// "downloads": send these for so many seconds.
	Phase   string  `json:"phase"`
	Seconds float64 `json:"seconds"`
	// Requests a second that are due, answered or not (open loop). 0: each connection
	// sends its next request once it is answered (closed loop).
	Rate float64 `json:"rate"`
	// Instead: each device sends it once.
	Once bool `json:"once"`
	// Of "downloads": the address of the image.
	Path string `json:"path"`
}

// Device is one of the fleet; its token is filled in by the phase "prepare".
type Device struct {
	Name  string `json:"name"`
	Key   string `json:"key"`
	Token string `json:"token"`
}

// Tally collects seconds by kind of request, and answers that were not expected.
type Tally struct {
	sync.Mutex
	seconds map[string][]float64
	wrong   map[string]int
	proved  int
}

func (t *Tally) note(kind string, seconds float64) {
	t.Lock()
	t.seconds[kind] = append(t.seconds[kind], seconds)
	t.Unlock()
}

func (t *Tally) complain(what string) {
	t.Lock()
	t.wrong[what]++
	t.Unlock()
}

// Firmware is the image of an order.
type Firmware struct {
	Version     string `json:"version"`
	Checksum    string `json:"checksum"`
	DownloadURL string `json:"downloadUrl"`
}

// Order is what a poll answers.
type Order struct {
	UpdateID string   `json:"updateId"`
	Firmware Firmware `json:"firmware"`
}

type client struct {
	job    *Job
	tally  *Tally
	wires  chan *wire
	device *Device
	boot   int
	runs   Firmware
}

// call sends a request and returns its status and body; 0 if there was no answer.
func (c *client) call(kind, method, path string, body any) (int, []byte) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			panic(err)
		}
	}
	// When it is due: whoever waits for a connection waits for the server.
	started := time.Now()
	connection := <-c.wires
	defer func() { c.wires <- connection }()
	return c.timed(connection, started, kind, method, path, text)
}

func (c *client) timed(connection *wire, started time.Time, kind, method, path string,
	text []byte) (int, []byte) {
	status, content, err := connection.send(method, path, c.device.Token, text)
	if err != nil {
		c.tally.complain(kind + " no answer")
		return 0, nil
	}
	c.tally.note(kind, time.Since(started).Seconds())
	return status, content
}

// expect repeats a request until it is granted, as devices do; false if it never is.
func (c *client) expect(kind, method, path string, body any, granted ...int) (int, []byte, bool) {
	deadline := time.Now().Add(time.Duration(c.job.GiveUpSeconds * float64(time.Second)))
	for time.Now().Before(deadline) {
		status, content := c.call(kind, method, path, body)
		for _, each := range granted {
			if status == each {
				return status, content, true
			}
		}
		var problem struct {
			Code string `json:"code"`
		}
		// A proxy answers with a page of its own.
		_ = json.Unmarshal(content, &problem)
		c.tally.complain(strings.TrimSpace(fmt.Sprintf("%s %d %s", kind, status, problem.Code)))
		time.Sleep(time.Second)
	}
	return 0, nil, false
}

func (c *client) bootID() string {
	return fmt.Sprintf("boot-%s-%d", c.device.Name, c.boot)
}

func (c *client) logIn() bool {
	_, content, ok := c.expect("log in", "POST", "/api/v1/auth/device-token",
		map[string]string{"deviceId": c.device.Name, "apiKey": c.device.Key}, 200)
	if !ok {
		return false
	}
	var token struct {
		Access string `json:"access"`
	}
	if json.Unmarshal(content, &token) != nil || token.Access == "" {
		c.tally.complain("log in without a token")
		return false
	}
	c.device.Token = token.Access
	return true
}

func (c *client) heartbeat() map[string]any {
	return map[string]any{
		"cpuUsage": 4.5, "memoryUsage": 20.0, "uptime": 1000,
		"bootId": c.bootID(), "firmwareVersion": c.runs.Version,
		"firmwareChecksum":   c.runs.Checksum,
		"applicationMetrics": map[string]float64{"errorRate": 0},
	}
}

func (c *client) beat(kind string) bool {
	_, _, ok := c.expect(
		kind, "POST", "/api/v1/devices/"+c.device.Name+"/health", c.heartbeat(), 200)
	return ok
}

func (c *client) report(order *Order, sequence int, status string) bool {
	_, _, ok := c.expect("report", "POST",
		"/api/v1/devices/"+c.device.Name+"/updates/"+order.UpdateID+"/reports",
		map[string]any{"sequence": sequence, "status": status, "bootId": c.bootID()}, 200)
	return ok
}

func seconds(number float64) time.Duration {
	return time.Duration(number * float64(time.Second))
}

// waitForOrder polls until there is one.
func (c *client) waitForOrder() *Order {
	deadline := time.Now().Add(seconds(c.job.GiveUpSeconds))
	for time.Now().Before(deadline) {
		status, content, ok := c.expect(
			"poll", "GET", "/api/v1/devices/"+c.device.Name+"/update", nil, 200, 204)
		if !ok {
			return nil
		}
		if status == 200 {
			var order Order
			if json.Unmarshal(content, &order) != nil || order.UpdateID == "" {
				c.tally.complain("poll without an order")
				return nil
			}
			return &order
		}
		time.Sleep(seconds(c.job.PollSeconds))
	}
	c.tally.complain("never ordered")
	return nil
}

// update takes a device from its first poll to its last proof.
func (c *client) update() {
	order := c.waitForOrder()
	if order == nil {
		return
	}
	ordered := time.Now()
	_, image, ok := c.expect("download", "GET", order.Firmware.DownloadURL, nil, 200)
	if !ok {
		return
	}
	digest := sha256.Sum256(image)
	if hex.EncodeToString(digest[:]) != order.Firmware.Checksum {
		c.tally.complain("download with other bytes")
		return
	}
	c.tally.note("order to verified", time.Since(ordered).Seconds())
	for number, word := range []string{"downloading", "verifying", "installing", "rebooting"} {
		if !c.report(order, number+1, word) {
			return
		}
	}
	c.boot++
	c.runs = order.Firmware
	// The proof spans the time between heartbeats that come after the claim.
	if !c.report(order, 5, "confirming") || !c.beat("heartbeat") {
		return
	}
	c.tally.note("order to installed", time.Since(ordered).Seconds())
	time.Sleep(seconds(c.job.ConfirmationSeconds))
	if !c.beat("heartbeat") {
		return
	}
	c.tally.note("order to last proof", time.Since(ordered).Seconds())
	c.tally.Lock()
	c.tally.proved++
	c.tally.Unlock()
}

func (c *client) prepare() {
	if c.logIn() {
		c.beat("first heartbeat")
	}
}

func newClient(job *Job, tally *Tally, wires chan *wire, device *Device) *client {
	return &client{job: job, tally: tally, wires: wires, device: device, boot: 1,
		runs: Firmware{Version: job.Version, Checksum: job.Checksum}}
}

// walk takes every device through its phase, so many of them at a time.
func walk(job *Job, tally *Tally, wires chan *wire) {
	queue := make(chan *Device)
	var group sync.WaitGroup
	for number := 0; number < job.AtOnce; number++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for device := range queue {
				each := newClient(job, tally, wires, device)
				if job.Phase == "prepare" {
					each.prepare()
				} else {
					each.update()
				}
			}
		}()
	}
	for number := range job.Devices {
		queue <- &job.Devices[number]
	}
	close(queue)
	group.Wait()
}

// Figures are those of one kind of request, in milliseconds.
type Figures struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func figures(found []float64) Figures {
	sort.Float64s(found)
	at := func(share float64) float64 {
		return 1000 * found[min(len(found)-1, int(share*float64(len(found))))]
	}
	return Figures{len(found), at(0.50), at(0.95), at(0.99), 1000 * found[len(found)-1]}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	var job Job
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		fmt.Fprintln(os.Stderr, "no job:", err)
		os.Exit(2)
	}
	tally := &Tally{seconds: map[string][]float64{}, wrong: map[string]int{}}
	wires := make(chan *wire, job.Connections)
	for number := 0; number < job.Connections; number++ {
		each, err := newWire(job.URL, job.Authority)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		wires <- each
	}
	started := time.Now()
	switch job.Phase {
	case "prepare", "update":
		walk(&job, tally, wires)
	default:
		repeat(&job, tally, wires)
	}
	kinds := map[string]Figures{}
	for kind, found := range tally.seconds {
		kinds[kind] = figures(found)
	}
	answer := map[string]any{
		"seconds": time.Since(started).Seconds(), "cpuSeconds": cpuSeconds(),
		"kinds": kinds, "wrong": tally.wrong, "proved": tally.proved,
	}
	if job.Phase == "prepare" {
		answer["devices"] = job.Devices
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		os.Exit(2)
	}
}
