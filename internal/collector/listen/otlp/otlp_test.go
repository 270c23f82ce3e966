package otlp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdk "go.opentelemetry.io/otel/sdk/log"
	"google.golang.org/grpc/credentials"

	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/listen/httpin"
	"tocsin/internal/collector/listen/listentest"
	"tocsin/internal/keys"
)

func start(t testing.TB, addr string, o httpin.Options, sink listen.Sink) (*Server, func()) {
	t.Helper()
	s, err := Listen(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, listentest.Serve(t, s, sink)
}

func tokens(t testing.TB) (*httpin.Tokens, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	token, err := httpin.NewToken(file, "test")
	if err != nil {
		t.Fatal(err)
	}
	all, err := httpin.OpenTokens(file, "")
	if err != nil {
		t.Fatal(err)
	}
	return all, token
}

// A stranger's sender: OpenTelemetry's Go SDK, over HTTP and gRPC, plain and over TLS, compressed. A full disk at first, then our side is
// restarted, then the sender; every record arrives.
func TestSDKPeer(t *testing.T) {
	n, modes := 1000, []string{"http", "grpcs"}
	if os.Getenv("TOCSIN_TEST_PEERS") != "" {
		n, modes = 100_000, []string{"http", "https", "grpc", "grpcs"}
	}
	site, err := keys.OpenListener(filepath.Join(t.TempDir(), "tls"), []string{"127.0.0.1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := keys.ReadAuthorities(site.Authority())
	if err != nil {
		t.Fatal(err)
	}
	all, token := tokens(t)
	ctx := t.Context()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			o := httpin.Options{Tokens: all}
			if strings.HasSuffix(mode, "s") {
				o.TLS = &tls.Config{GetCertificate: site.Certificate, MinVersion: tls.VersionTLS12}
			}
			sink := &listentest.Store{}
			sink.Refuse(1)
			addr := listentest.Addr(listentest.Port(t, "tcp"))
			_, stop := start(t, addr, o, sink)
			headers := map[string]string{"authorization": "Bearer " + token}
			trust := &tls.Config{RootCAs: pool}
			sender := func() *sdk.LoggerProvider {
				var exporter sdk.Exporter
				var err error
				switch mode {
				case "http":
					exporter, err = otlploghttp.New(ctx, otlploghttp.WithEndpoint(addr), otlploghttp.WithInsecure(), otlploghttp.WithHeaders(headers), otlploghttp.WithCompression(otlploghttp.GzipCompression),
						otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: true, InitialInterval: 20 * time.Millisecond, MaxInterval: 100 * time.Millisecond, MaxElapsedTime: time.Minute}))
				case "https":
					exporter, err = otlploghttp.New(ctx, otlploghttp.WithEndpoint(addr), otlploghttp.WithTLSClientConfig(trust), otlploghttp.WithHeaders(headers),
						otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: true, InitialInterval: 20 * time.Millisecond, MaxInterval: 100 * time.Millisecond, MaxElapsedTime: time.Minute}))
				default:
					opts := []otlploggrpc.Option{otlploggrpc.WithEndpoint(addr), otlploggrpc.WithHeaders(headers),
						otlploggrpc.WithRetry(otlploggrpc.RetryConfig{Enabled: true, InitialInterval: 20 * time.Millisecond, MaxInterval: 100 * time.Millisecond, MaxElapsedTime: time.Minute})}
					if mode == "grpc" {
						opts = append(opts, otlploggrpc.WithInsecure(), otlploggrpc.WithCompressor("gzip"))
					} else {
						opts = append(opts, otlploggrpc.WithTLSCredentials(credentials.NewTLS(trust)))
					}
					exporter, err = otlploggrpc.New(ctx, opts...)
				}
				if err != nil {
					t.Fatal(err)
				}
				return sdk.NewLoggerProvider(sdk.WithProcessor(sdk.NewBatchProcessor(exporter, sdk.WithMaxQueueSize(n+1), sdk.WithExportMaxBatchSize(500), sdk.WithExportTimeout(time.Minute))))
			}
			provider := sender()
			logger := provider.Logger("peer")
			for i := range n {
				var r log.Record
				r.SetTimestamp(time.Unix(1_800_000_000, int64(i)))
				r.SetSeverity(log.SeverityWarn)
				r.SetBody(attribute.StringValue(fmt.Sprintf("record %d \"quoted\"\nünï", i)))
				r.AddAttributes(attribute.String("source.ip", "203.0.113.7"), attribute.Int("n", i),
					attribute.KeyValue{Key: "list", Value: attribute.SliceValue(attribute.BoolValue(true), attribute.Float64Value(1.5))},
					attribute.KeyValue{Key: "map", Value: attribute.MapValue(attribute.String("k", "v"))})
				logger.Emit(ctx, r)
				if i == n*3/4 { // the sender ends, as programs do that use the SDK, and begins again
					if err := provider.Shutdown(ctx); err != nil {
						t.Fatal(err)
					}
					provider = sender()
					logger = provider.Logger("peer")
				}
				if i == n/2 {
					if err := provider.ForceFlush(ctx); err != nil {
						t.Fatal(err)
					}
					stop()
					if strings.HasPrefix(mode, "grpc") { // away for a while: the sender tries again
						time.AfterFunc(30*time.Millisecond, func() { start(t, addr, o, sink) })
					} else { // over HTTP the SDK gives up at once what it cannot connect for
						start(t, addr, o, sink)
					}
				}
			}
			if err := provider.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
			seen := make([]bool, n)
			for _, l := range sink.Lines() {
				var r struct {
					Time       string `json:"@timestamp"`
					Message    string
					Severity   int `json:"severity_number"`
					Attributes map[string]any
					Scope      struct{ Name string }
					Resource   map[string]any
				}
				if err := json.Unmarshal([]byte(l), &r); err != nil || strings.Contains(l, "\n") {
					t.Fatalf("%v: %s", err, l)
				}
				i := int(r.Attributes["n"].(float64))
				if r.Message != fmt.Sprintf("record %d \"quoted\"\nünï", i) || r.Severity != 13 || r.Scope.Name != "peer" || r.Attributes["source.ip"] != "203.0.113.7" || fmt.Sprint(r.Attributes["list"], r.Attributes["map"]) != "[true 1.5] map[k:v]" || r.Resource["service.name"] == nil {
					t.Fatal(l)
				}
				seen[i] = true
			}
			lost := 0
			for _, ok := range seen {
				if !ok {
					lost++
				}
			}
			lines, synced := sink.Count()
			if lost > 0 || synced != lines {
				t.Errorf("%d of %d lost; %d lines, %d durable", lost, n, lines, synced)
			}
			t.Logf("%d records, %d twice", n, lines-n)
		})
	}
}

func post(t *testing.T, url, token, kind string, body []byte) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// JSON as the specification writes it, a record too long, and what is wrong.
func TestRequests(t *testing.T) {
	all, token := tokens(t)
	sink := &listentest.Store{}
	o := httpin.Options{Tokens: all}
	srv, _ := start(t, "127.0.0.1:0", o, sink)
	url := "http://" + srv.Addr().String() + Path
	long := strings.Repeat("x", 300<<10)
	status, answer := post(t, url, token, "application/json", []byte(`{"resourceLogs":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"h1"}}]},"scopeLogs":[{"scope":{"name":"s"},"logRecords":[
		{"timeUnixNano":"1800000000000000000","observedTimeUnixNano":1800000000000000001,"severityNumber":9,"severityText":"INFO","traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
		 "body":{"kvlistValue":{"values":[{"key":"a","value":{"intValue":"7"}},{"key":"a","value":{"intValue":8}},{"key":"b","value":{"bytesValue":"AQI="}},{"key":"c","value":{}},{"key":"d","value":{"arrayValue":{"values":[{"boolValue":true},{"doubleValue":0.5}]}}}]}}},
		{"timeUnixNano":null,"body":{"stringValue":"of no time"}},
		{"body":{"stringValue":"`+long+`"}}]}]}]}`))
	came := sink.Lines()
	if status != 200 || !strings.Contains(answer, `"rejectedLogRecords":"1"`) || len(came) != 2 {
		t.Fatalf("%d %.300s, %d lines", status, answer, len(came))
	}
	want := `{"@timestamp":"2027-01-15T08:00:00Z","observed_timestamp":"2027-01-15T08:00:00.000000001Z","severity_text":"INFO","severity_number":9,"body":{"a":7,"b":"AQI=","c":null,"d":[true,0.5]},"resource":{"host.name":"h1"},"scope":{"name":"s"},"trace_id":"5b8efff798038103d269b633813fc60c","span_id":"eee19b7ec3c1b174"}`
	if !strings.Contains(came[1], `"observed_timestamp":"20`) || !strings.Contains(came[1], `"@timestamp":"20`) {
		t.Errorf("a record without time was received at no time: %s", came[1])
	}
	if came[0] != want {
		t.Errorf("%s\nwant %s", came[0], want)
	}
	deep := []byte{}
	for range 2 * maxDepth { // arrays in arrays
		deep = append(appendVarint([]byte{1<<3 | 2}, uint64(len(deep))), deep...)
		deep = append(appendVarint([]byte{5<<3 | 2}, uint64(len(deep))), deep...)
	}
	for _, n := range []byte{5, 2, 2, 1} { // body of a record, of a scope, of a resource, of a request
		deep = append(appendVarint([]byte{n<<3 | 2}, uint64(len(deep))), deep...)
	}
	for name, c := range map[string]struct {
		kind string
		body []byte
	}{
		"not protobuf": {"application/x-protobuf", []byte("hello")},
		"too deep":     {"application/x-protobuf", deep},
		"not json":     {"application/json", []byte("{")},
		"other type":   {"text/plain", []byte("x")},
	} {
		if status, answer := post(t, url, token, c.kind, c.body); status/100 != 4 || !strings.Contains(answer, `"next"`) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if status, _ := post(t, url, "wrong", "application/json", []byte("{}")); status != 401 {
		t.Errorf("wrong token: %d", status)
	}
	// gRPC: what is wrong is a status.
	exp, err := otlploggrpc.New(t.Context(), otlploggrpc.WithEndpoint(srv.Addr().String()), otlploggrpc.WithInsecure(), otlploggrpc.WithRetry(otlploggrpc.RetryConfig{}))
	if err != nil {
		t.Fatal(err)
	}
	defer exp.Shutdown(context.Background())
	if err := exp.Export(t.Context(), make([]sdk.Record, 1)); err == nil || !strings.Contains(err.Error(), "Unauthenticated") {
		t.Errorf("gRPC without token: %v", err)
	}
	if st := srv.Stats(); st.By["refused_token"] != 2 || st.By["refused_too_long"] != 1 || st.By["refused_body"] != 3 || st.Lines != 2 {
		t.Errorf("%+v", st)
	}
}

// A request whose records would say a large resource again and again is refused before that fills the memory; records that are too long for it are
// not written at all.
func TestAmplified(t *testing.T) {
	all, token := tokens(t)
	sink := &listentest.Store{}
	srv, _ := start(t, "127.0.0.1:0", httpin.Options{Tokens: all}, sink)
	url := "http://" + srv.Addr().String() + Path
	request := func(resource, records int) []byte {
		field := func(n byte, v []byte) []byte { return append(appendVarint([]byte{n<<3 | 2}, uint64(len(v))), v...) }
		value := field(2, field(1, bytes.Repeat([]byte("x"), resource)))
		r := field(1, field(1, append(field(1, []byte("k")), value...)))
		return field(1, append(r, field(2, bytes.Repeat(field(2, nil), records))...))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if status, answer := post(t, url, token, "application/x-protobuf", request(100<<10, 1_000_000)); status != 413 || !strings.Contains(answer, "smaller batches") {
		t.Errorf("%d %.300s", status, answer)
	}
	if status, _ := post(t, url, token, "application/x-protobuf", request(1<<20, 1_000_000)); status != 200 {
		t.Errorf("records too long: %d", status)
	}
	if status, answer := post(t, url, token, "application/json", []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[`+strings.Repeat("{},", 1_200_000)+`{}]}]}]}`)); status != 413 || !strings.Contains(answer, "values") {
		t.Errorf("empty records: %d %.300s", status, answer)
	}
	if status, answer := post(t, url, token, "application/x-protobuf", request(0, 1_500_000)); status != 413 {
		t.Errorf("empty records: %d %.300s", status, answer)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 128<<20 {
		t.Errorf("%d MiB were allocated", used>>20)
	}
	lines, _ := sink.Count()
	if st := srv.Stats(); lines != 0 || st.By["refused_too_big"] != 3 || st.By["refused_too_long"] != 1_000_000 {
		t.Errorf("%d lines, %+v", lines, st)
	}
}

// Whatever comes: no panic, and lines that are JSON objects.
func FuzzProto(f *testing.F) {
	f.Add([]byte("\n\x1e\n\x0e\n\x0c\n\x04host\x12\x04\n\x02h1\x12\x0c\x12\x0a*\x04\n\x02hi0\x01\x1a\x00"))
	f.Add([]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func([]byte, *lines) error{readProto, readJSON} {
			out := lines{maxLine: 1 << 10}
			if read(b, &out) != nil {
				continue
			}
			for _, l := range out.texts {
				if !json.Valid(l) || l[0] != '{' || bytes.ContainsAny(l, "\r\n") {
					t.Fatalf("%q of %q", l, b)
				}
			}
		}
	})
}
