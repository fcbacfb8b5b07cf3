// Sends a job to batchkeeper and prints its results. Go 1.21 or newer, standard library only.
//
//	BATCHKEEPER_URL=http://127.0.0.1:8080 BATCHKEEPER_KEY=... go run client.go job.json
//
// BATCHKEEPER_CLIENT is the client's name if it is not "default". BATCHKEEPER_POLL is the longest
// pause between two polls, in seconds.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const attempts = 8

var (
	url    = strings.TrimRight(setting("BATCHKEEPER_URL", "http://127.0.0.1:8080"), "/")
	key    = setting("BATCHKEEPER_KEY", "")
	client = setting("BATCHKEEPER_CLIENT", "default")
	caller = http.Client{Timeout: 300 * time.Second}
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

// sign returns signature v1: over the time, the method, path and query, and the raw body.
func sign(timestamp, method, target string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "%s.%s.%s.", timestamp, method, target)
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// answer has the members that this program needs.
type answer struct {
	JobID   string `json:"job_id"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// send makes one request. It returns the status, the wait of Retry-After and the body.
func send(method, target string, body []byte) (int, time.Duration, []byte, error) {
	request, err := http.NewRequest(method, url+target, bytes.NewReader(body))
	if err != nil {
		return 0, 0, nil, err
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	request.Header.Set("X-Client-Id", client)
	request.Header.Set("X-Timestamp", timestamp)
	request.Header.Set("X-Signature", sign(timestamp, method, target, body))
	if method == http.MethodPost {
		// The same body has the same key, so that it is the same job: nothing is billed twice. To send
		// a job that has failed again, change its body or this key.
		hash := sha256.Sum256(body)
		request.Header.Set("Idempotency-Key", hex.EncodeToString(hash[:]))
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := caller.Do(request)
	if err != nil {
		return 0, 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	wait, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return response.StatusCode, time.Duration(wait) * time.Second, text, err
}

// call sends a request, and repeats it while the service is busy or out of reach. Each attempt has a
// new signature: that of a POST is accepted once, and for 300 seconds.
func call(method, target string, body []byte) (int, time.Duration, answer, []byte) {
	var problem string
	var wait time.Duration
	for attempt := 0; attempt < attempts; attempt++ {
		time.Sleep(wait)
		status, retryAfter, text, err := send(method, target, body)
		var parsed answer
		if err == nil {
			err = json.Unmarshal(text, &parsed)
		}
		switch {
		case err != nil:
			problem, wait = err.Error(), time.Second<<attempt
		case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
			problem, wait = parsed.Message, retryAfter
		default:
			return status, retryAfter, parsed, text
		}
	}
	fail("gave up: %s", problem)
	panic("not reached")
}

func main() {
	if key == "" || len(os.Args) != 2 {
		fail("usage: BATCHKEEPER_KEY=... go run client.go job.json")
	}
	poll, err := strconv.ParseFloat(setting("BATCHKEEPER_POLL", "30"), 64)
	if err != nil {
		fail("BATCHKEEPER_POLL: %v", err)
	}
	body, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail("%v", err)
	}
	status, _, job, _ := call(http.MethodPost, "/api/v1/generate-descriptions", body)
	if status >= 300 {
		fail("refused: %d %s: %s", status, job.Code, job.Message)
	}
	fmt.Fprintf(os.Stderr, "job %s\n", job.JobID)
	for {
		status, wait, results, text := call(http.MethodGet, "/api/v1/batch-results/"+job.JobID, nil)
		switch status {
		case http.StatusOK:
			fmt.Println(string(text))
			return
		case http.StatusAccepted:
			// A webhook reports the end immediately. Poll if the client cannot receive webhooks.
			if longest := time.Duration(poll * float64(time.Second)); wait > longest {
				wait = longest
			}
			time.Sleep(wait)
		default:
			fail("%d %s: %s", status, results.Code, results.Message)
		}
	}
}
