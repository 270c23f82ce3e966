package load

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The receiver counts each incident once, by its first notice, and nothing else.
func TestReceiver(t *testing.T) {
	r, err := startReceiver()
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	post := func(body string) int {
		resp, err := http.Post(r.at, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	notice := func(alert, entity string, update int, ago time.Duration) string {
		return fmt.Sprintf(`{"alert":%q,"tenant":3,"update":%d,"entity":%q,"first":%q,"more":1}`, alert, update, entity, time.Now().Add(-ago).UTC().Format(time.RFC3339Nano))
	}
	for _, body := range []string{notice("a", "198.19.128.1", 0, time.Minute), notice("a", "198.19.128.1", 0, time.Hour), notice("b", "198.19.128.2", 1, time.Hour), notice("c", "198.18.0.1", 0, time.Hour),
		strings.Replace(notice("d", "198.19.128.3", 0, time.Hour), `"tenant":3`, `"tenant":0`, 1)} {
		if code := post(body); code != 200 {
			t.Errorf("%s: %d", body, code)
		}
	}
	if code := post("no"); code != 400 {
		t.Errorf("what is no notice: %d", code)
	}
	if q := r.delivered(); q.N != 1 || q.P99 < 60_000 || q.P99 > 600_000 {
		t.Errorf("%+v", q)
	}
}
