package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

const longestAnswer = 120 * time.Second

// wire is one kept connection over HTTP/1.1 that costs the machine next to nothing,
// because the machine is the server's too: no pool, no parsing beyond the status and the
// length of an answer.
type wire struct {
	host string
	// Nil over plain HTTP.
	secure *tls.Config
	conn   net.Conn
	reader *bufio.Reader
}

// newWire returns a connection that is opened at its first request. Over https the server
// is trusted by a certificate in PEM.
func newWire(address, authority string) (*wire, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	switch parsed.Scheme {
	case "http":
		return &wire{host: parsed.Host}, nil
	case "https":
		trusted := x509.NewCertPool()
		trusted.AppendCertsFromPEM([]byte(authority))
		secure := &tls.Config{RootCAs: trusted, ServerName: parsed.Hostname()}
		return &wire{host: parsed.Host, secure: secure}, nil
	}
	return nil, fmt.Errorf("%s: only http and https are spoken here", address)
}

func (w *wire) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// send sends a request and returns status and body of its answer. A connection that the
// server has closed meanwhile is opened again, once.
func (w *wire) send(method, path, token string, body []byte) (int, []byte, error) {
	isKept := w.conn != nil
	status, content, err := w.exchange(method, path, token, body)
	if err != nil && isKept && (errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		status, content, err = w.exchange(method, path, token, body)
	}
	return status, content, err
}

func (w *wire) exchange(method, path, token string, body []byte) (int, []byte, error) {
	if w.conn == nil {
		conn, err := w.dial()
		if err != nil {
			return 0, nil, err
		}
		w.conn, w.reader = conn, bufio.NewReaderSize(conn, 1<<16)
	}
	status, content, err := w.write(method, path, token, body)
	if err != nil {
		w.close()
	}
	return status, content, err
}

func (w *wire) dial() (net.Conn, error) {
	if w.secure == nil {
		return net.Dial("tcp", w.host)
	}
	return tls.Dial("tcp", w.host, w.secure)
}

func (w *wire) write(method, path, token string, body []byte) (int, []byte, error) {
	var message bytes.Buffer
	message.WriteString(method + " " + path + " HTTP/1.1\r\nHost: " + w.host + "\r\n")
	if token != "" {
		message.WriteString("Authorization: Bearer " + token + "\r\n")
	}
	if body != nil {
		message.WriteString("Content-Type: application/json\r\nContent-Length: ")
		message.WriteString(strconv.Itoa(len(body)) + "\r\n")
	}
	message.WriteString("\r\n")
	message.Write(body)
	if err := w.conn.SetDeadline(time.Now().Add(longestAnswer)); err != nil {
		return 0, nil, err
	}
	if _, err := w.conn.Write(message.Bytes()); err != nil {
		return 0, nil, err
	}
	return w.read()
}

func (w *wire) read() (int, []byte, error) {
	line, err := w.reader.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 {
		return 0, nil, fmt.Errorf("no status: %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, nil, err
	}
	length, isKnown, closes := 0, status == 204 || status == 304, false
	for {
		line, err = w.reader.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil {
				return 0, nil, err
			}
			isKnown = true
		case bytes.EqualFold(name, []byte("connection")):
			closes = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	if !isKnown {
		return 0, nil, errors.New("an answer without its length")
	}
	content := make([]byte, length)
	if _, err := io.ReadFull(w.reader, content); err != nil {
		return 0, nil, err
	}
	if closes {
		w.close()
	}
	return status, content, nil
}
