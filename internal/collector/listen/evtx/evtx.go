// Package evtx reads Windows event log files (.evtx) for the drop folder: each record becomes one line of JSON in the shape that winlogbeat
// writes, so that one parser knows both:
//
//	{"@timestamp":…,"event":{"code":"4625","provider":…},"host":{"name":…},"log":{"level":…},
//	 "winlog":{"channel":…,"computer_name":…,"event_id":"4625","provider_name":…,"record_id":…,"event_data":{…},"user_data":{…},…}}
//
// Native field names stay as Windows writes them. The library that takes the file apart (www.velocidex.com/golang/evtx) gives numbers that
// Windows shows in hexadecimal as plain ones; they are turned back by name. What it cannot read is an error that says how much was read before.
package evtx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/Velocidex/ordereddict"
	lib "www.velocidex.com/golang/evtx"
)

const (
	magic     = "ElfFile\x00"
	maxChunks = 1 << 17 // of 64 KiB: 8 GiB
	maxDepth  = 16
)

// Knows says whether a file with these first bytes is a Windows event log.
func Knows(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// ErrDamaged means that some records of the file could not be read; those before it were given.
var ErrDamaged = errors.New("the file is damaged or was not closed properly")

// Read gives emit every record of the file as a line of JSON, in the order of the file. It ends with emit's error when that gives one.
func Read(f *os.File, emit func(text []byte) error) error { return read(f, emit) }

func read(f io.ReadSeeker, emit func(text []byte) error) (err error) {
	chunks, err := chunksOf(f)
	if err != nil {
		return err
	}
	if len(chunks) > maxChunks {
		return fmt.Errorf("%d chunks; at most %d are read", len(chunks), maxChunks)
	}
	given, missing := 0, uint64(0)
	for _, c := range chunks {
		records, perr := parse(c)
		for _, r := range records {
			line, ok := lineOf(r)
			if !ok {
				missing++
				continue
			}
			if err := emit(line); err != nil {
				return err
			}
			given++
		}
		want := c.Header.LastEventRecNumber - c.Header.FirstEventRecNumber + 1
		if perr != nil || want > uint64(len(records)) {
			missing += max(1, want-min(want, uint64(len(records))))
		}
	}
	if missing > 0 {
		return fmt.Errorf("%w: %d records were read, at least %d were not. On Windows, wevtutil epl makes a clean copy of a log that is in use", ErrDamaged, given, min(missing, 1<<20))
	}
	return nil
}

func chunksOf(f io.ReadSeeker) (chunks []*lib.Chunk, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return lib.GetChunks(f)
}

// parse takes a chunk apart. The library may panic on a damaged one.
func parse(c *lib.Chunk) (records []*lib.EventRecord, err error) {
	defer func() {
		if r := recover(); r != nil {
			records, err = nil, fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return c.Parse(0)
}

// lineOf makes a line of one record.
func lineOf(r *lib.EventRecord) (line []byte, ok bool) {
	root, ok := r.Event.(*ordereddict.Dict)
	if !ok {
		return nil, false
	}
	ev, ok := dict(root, "Event")
	if !ok {
		return nil, false
	}
	sys, ok := dict(ev, "System")
	if !ok {
		return nil, false
	}
	out := map[string]any{}
	winlog := map[string]any{"api": "evtx"}
	event := map[string]any{"kind": "event"}
	text := func(to map[string]any, name string, v any) {
		if s := str(v); s != "" && s != "<nil>" {
			to[name] = s
		}
	}
	id := get(sys, "EventID", "Value")
	text(winlog, "event_id", id)
	text(event, "code", id)
	text(winlog, "provider_name", get(sys, "Provider", "Name"))
	text(event, "provider", get(sys, "Provider", "Name"))
	text(winlog, "provider_guid", get(sys, "Provider", "Guid"))
	text(winlog, "channel", get(sys, "Channel"))
	text(winlog, "computer_name", get(sys, "Computer"))
	text(winlog, "record_id", get(sys, "EventRecordID"))
	text(winlog, "version", get(sys, "Version"))
	// Task and opcode are numbers in the file whose names are in the provider's own messages, on the machine that wrote it. winlogbeat writes the
	// names; a number in their place would be taken for one.
	text(winlog, "activity_id", get(sys, "Correlation", "ActivityID"))
	if n, ok := number(get(sys, "Keywords")); ok {
		winlog["keywords"] = fmt.Sprintf("0x%x", n)
		if n&0x20000000000000 != 0 {
			event["outcome"] = "success"
		} else if n&0x10000000000000 != 0 {
			event["outcome"] = "failure"
		}
	}
	if s := str(get(sys, "Security", "UserID")); s != "" {
		winlog["user"] = map[string]any{"identifier": s}
	}
	if pid, ok := number(get(sys, "Execution", "ProcessID")); ok {
		p := map[string]any{"pid": pid}
		if tid, ok := number(get(sys, "Execution", "ThreadID")); ok {
			p["thread"] = map[string]any{"id": tid}
		}
		winlog["process"] = p
	}
	if level, ok := number(get(sys, "Level")); ok && level < 6 {
		out["log"] = map[string]any{"level": [...]string{"information", "critical", "error", "warning", "information", "verbose"}[level]}
	}
	if s := str(get(sys, "Computer")); s != "" {
		out["host"] = map[string]any{"name": s}
	}
	if at, ok := get(sys, "TimeCreated", "SystemTime").(float64); ok && at > 0 && at < math.MaxInt32*4 {
		out["@timestamp"] = time.UnixMicro(int64(math.Round(at * 1e6))).UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	channel := str(get(sys, "Channel"))
	if data, ok := dict(ev, "EventData"); ok {
		winlog["event_data"] = plain(data, channel, 0)
	}
	if data, ok := dict(ev, "UserData"); ok {
		winlog["user_data"] = plain(data, channel, 0)
	}
	out["winlog"], out["event"] = winlog, event
	line, err := json.Marshal(out)
	return line, err == nil
}

func dict(d *ordereddict.Dict, name string) (*ordereddict.Dict, bool) {
	v, ok := d.Get(name)
	if !ok {
		return nil, false
	}
	x, ok := v.(*ordereddict.Dict)
	return x, ok && x != nil
}

// get goes down by names; nil when one is not there. A value where an object was expected is the answer for its own "Value".
func get(d *ordereddict.Dict, names ...string) any {
	for i, n := range names {
		v, ok := d.Get(n)
		if !ok {
			return nil
		}
		next, isDict := v.(*ordereddict.Dict)
		if i == len(names)-1 {
			if isDict {
				v, _ = next.Get("Value")
			}
			return v
		}
		if !isDict || next == nil {
			if names[i+1] == "Value" {
				return v
			}
			return nil
		}
		d = next
	}
	return nil
}

func number(v any) (uint64, bool) {
	switch x := v.(type) {
	case uint8:
		return uint64(x), true
	case uint16:
		return uint64(x), true
	case uint32:
		return uint64(x), true
	case uint64:
		return x, true
	case int32:
		return uint64(uint32(x)), true
	case int64:
		return uint64(x), true
	case int:
		return uint64(x), true
	case string:
		n, err := strconv.ParseUint(x, 0, 64)
		return n, err == nil
	}
	return 0, false
}

func str(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return strings.TrimRight(x, "\x00")
	case []byte:
		return strings.ToUpper(fmt.Sprintf("%x", x))
	case []string:
		return strings.Join(x, ", ")
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case *ordereddict.Dict:
		return ""
	}
	return fmt.Sprint(v)
}

// hex are the fields that Windows shows in hexadecimal, in every channel; in Security process numbers are too.
var hex = map[string]bool{
	"Status": true, "SubStatus": true, "AccessMask": true, "TicketOptions": true, "TicketEncryptionType": true, "FailureCode": true, "HandleId": true, "AuthenticationPackageFlags": true,
	"ObjectAccessMask": true, "ErrorCode": true, "ResultCode": true, "CallerProcessId": true, "SourceHandleId": true, "GrantedAccess": true, "OldUacValue": true, "NewUacValue": true,
}

// plain makes ordinary maps of the library's. Every scalar is text, as winlogbeat writes event_data.
func plain(d *ordereddict.Dict, channel string, depth int) map[string]any {
	out := map[string]any{}
	if depth > maxDepth {
		return out
	}
	for _, k := range d.Keys() {
		v, _ := d.Get(k)
		switch x := v.(type) {
		case *ordereddict.Dict:
			if x != nil {
				out[k] = plain(x, channel, depth+1)
			}
			continue
		case []*ordereddict.Dict:
			var list []any
			for _, e := range x {
				list = append(list, plain(e, channel, depth+1))
			}
			out[k] = list
			continue
		}
		n, isNumber := number(v)
		_, isText := v.(string)
		switch {
		case isNumber && !isText && (hex[k] || strings.HasSuffix(k, "LogonId") || channel == "Security" && strings.HasSuffix(k, "ProcessId")):
			out[k] = fmt.Sprintf("0x%x", n)
		case str(v) != "":
			out[k] = str(v)
		}
	}
	return out
}
