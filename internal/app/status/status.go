// Package status is what the hub's admin socket answers to GET /status: the sum of lines from each device to each alert, so that a gap can
// be seen by anyone who adds up. It is only types; package app fills them, the demo, the load generator and `tocsin admin doctor` read them.
package status

// Status is the whole answer.
type Status struct {
	Members []Member             `json:"members"`
	Alerts  []Alert              `json:"alerts"`
	Stages  map[string]Stage     `json:"stages"`
	Latency map[string]Quantiles `json:"latency"` // receipt_to_alert_ms, receipt_to_stored_ms
}

// Member is one organisation with its collectors.
type Member struct {
	Tenant     uint32      `json:"tenant"`
	Name       string      `json:"name"`
	Collectors []Collector `json:"collectors"`
}

// Collector is the sums that one collector's manifests state, and what the hub did with its batches. For each collector
// received = not_understood + Σ kept + Σ left, and Σ left + Σ made = sent + waiting + Σ dropped (waiting is known on the site).
type Collector struct {
	ID            string            `json:"id"`
	Name          string            `json:"name"`
	State         string            `json:"state"` // quarantined, live, revoked
	Received      uint64            `json:"received"`
	Parsed        uint64            `json:"parsed"`
	NotUnderstood uint64            `json:"not_understood"`
	Kept          map[string]uint64 `json:"kept,omitempty"`    // lines that stayed at home, by reason
	Left          map[string]uint64 `json:"left,omitempty"`    // lines that left, by reason
	Made          map[string]uint64 `json:"made,omitempty"`    // events the collector made itself: detections, evidence
	Dropped       map[string]uint64 `json:"dropped,omitempty"` // events lost on the site, by reason
	Sent          uint64            `json:"sent"`              // events in batches, as the manifests count them
	Acknowledged  uint64            `json:"acknowledged"`      // events in batches for which the gate gave a receipt
	Stored        uint64            `json:"stored"`            // rows in the event store
	Dead          uint64            `json:"dead"`              // events kept aside because they could not be read, with their reason
	Batches       uint64            `json:"batches"`
	LastSeen      int64             `json:"last_seen_ns"` // hub time of the last batch
}

// Alert is one alert, in short.
type Alert struct {
	ID         int64  `json:"id"`
	Tenant     uint32 `json:"tenant"`
	Family     string `json:"family"`
	Rule       string `json:"rule"`
	Title      string `json:"title"`
	Level      string `json:"level"`
	EntityKind string `json:"entity_kind"`
	Entity     string `json:"entity"`
	Count      int64  `json:"count"`
	First      int64  `json:"first_ns"`  // event time of the first event behind it
	Raised     int64  `json:"raised_ns"` // hub time at which the alert was committed
	Late       bool   `json:"late,omitempty"`
}

// Stage is what every stage counts.
type Stage struct {
	In     uint64            `json:"in"`
	Out    uint64            `json:"out"`
	Failed map[string]uint64 `json:"failed,omitempty"` // by reason, from a closed set
	Lag    uint64            `json:"lag"`              // bus messages behind
}

// Quantiles of a latency, in milliseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	N   uint64  `json:"n"`
}
