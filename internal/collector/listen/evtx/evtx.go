// Package evtx reads Windows event log files (.evtx) for the drop folder: each record becomes one line of JSON in the shape that winlogbeat
// writes, so that one parser knows both:
//
//	{"@timestamp":…,"event":{"code":"4625","provider":…},"host":{"name":…},"log":{"level":…},
//	 "winlog":{"channel":…,"computer_name":…,"event_id":"4625","provider_name":…,"record_id":…,"event_data":{…},"user_data":{…},…}}
//
// Native field names and values stay as Windows writes them. A file is read one chunk of 64 KiB at a time, and nothing in it is believed
// (binxml.go): a record that is not whole is left out and counted, the others are given, and the end is ErrDamaged.
package evtx

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

const (
	magic      = "ElfFile\x00"
	chunkMagic = "ElfChnk\x00"
	fileHeader = 4096
	firstAt    = 512 // the first record of a chunk
	maxRecords = (chunkSize - firstAt) / 28
	maxChunks  = 1 << 17 // 8 GiB
	maxDepth   = 16
)

// Knows says whether a file with these first bytes is a Windows event log.
func Knows(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// ErrDamaged means that some records of the file could not be read; the others were given.
var ErrDamaged = errors.New("the file is damaged or was not closed properly")

// Read gives emit every record of the file as a line of JSON, in the order of the file. It ends with emit's error when that gives one.
func Read(f *os.File, emit func(text []byte) error) error { return read(f, emit) }

func read(f io.Reader, emit func(text []byte) error) error {
	header := make([]byte, fileHeader)
	if _, err := io.ReadFull(f, header); err != nil {
		return fmt.Errorf("%w: it ends within its first %d bytes", ErrDamaged, fileHeader)
	}
	if !Knows(header) {
		return errors.New("not a Windows event log: it does not begin with ElfFile")
	}
	if major := binary.LittleEndian.Uint16(header[38:]); major != 3 {
		return fmt.Errorf("a Windows event log of version %d; version 3 is read (Windows Vista and later)", major)
	}
	given, missing := 0, uint64(0)
	chunk := make([]byte, chunkSize)
	for n := 0; ; n++ {
		size, err := io.ReadFull(f, chunk)
		if size == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read: %w", err)
		}
		if n == maxChunks {
			return fmt.Errorf("more than %d chunks; split the log, or clear it more often", maxChunks)
		}
		got, lost, err := records(chunk[:size], emit)
		if err != nil {
			return err
		}
		given, missing = given+got, missing+lost
	}
	if missing > 0 {
		return fmt.Errorf("%w: %d records were read, at least %d were not. On Windows, wevtutil epl makes a clean copy of a log that is in use", ErrDamaged, given, min(missing, 1<<20))
	}
	return nil
}

// records gives the records of a chunk, and says how many are missing by its header's account.
func records(c []byte, emit func(text []byte) error) (given int, missing uint64, err error) {
	if len(c) < firstAt || !bytes.HasPrefix(c, []byte(chunkMagic)) {
		if len(bytes.Trim(c, "\x00")) == 0 {
			return 0, 0, nil // room that Windows took and has not used
		}
		return 0, 1, nil
	}
	first, last := binary.LittleEndian.Uint64(c[8:]), binary.LittleEndian.Uint64(c[16:])
	if binary.LittleEndian.Uint64(c[32:]) == 1<<64-1 {
		return 0, 0, nil // empty
	}
	want, seen := last-first+1, uint64(0)
	if last < first || want > maxRecords { // the header is damaged: what is there is read
		want, missing = maxRecords, 1
	}
	claimed := missing == 0
	d := decoder{chunk: ofChunk}
	for at := firstAt; seen < want && at+28 <= len(c); {
		size := int(binary.LittleEndian.Uint32(c[at+4:]))
		if binary.LittleEndian.Uint32(c[at:]) != 0x2a2a || size < 28 || size > len(c)-at {
			break
		}
		root, err := d.read(cursor{b: c, at: at + 24, end: at + size - 4})
		at += size
		seen++
		if err != nil {
			missing++
			continue
		}
		line, ok := lineOf(root)
		if !ok {
			missing++
			continue
		}
		if err := emit(line); err != nil {
			return given, missing, err
		}
		given++
	}
	if claimed {
		missing += want - seen
	}
	return given, missing, nil
}

// lineOf makes a line of one record.
func lineOf(root *element) (line []byte, ok bool) {
	ev := root.child("Event")
	sys := ev.child("System")
	if sys == nil {
		return nil, false
	}
	out := map[string]any{}
	winlog := map[string]any{"api": "evtx"}
	event := map[string]any{"kind": "event"}
	text := func(to map[string]any, name, v string) {
		if v != "" {
			to[name] = v
		}
	}
	text(winlog, "event_id", sys.value("EventID"))
	text(event, "code", sys.value("EventID"))
	text(winlog, "provider_name", sys.child("Provider").attr("Name"))
	text(event, "provider", sys.child("Provider").attr("Name"))
	text(winlog, "provider_guid", sys.child("Provider").attr("Guid"))
	text(winlog, "channel", sys.value("Channel"))
	text(winlog, "computer_name", sys.value("Computer"))
	text(winlog, "record_id", sys.value("EventRecordID"))
	text(winlog, "version", sys.value("Version"))
	// Task and opcode are numbers in the file whose names are in the provider's own messages, on the machine that wrote it. winlogbeat writes the
	// names; a number in their place would be taken for one.
	text(winlog, "activity_id", sys.child("Correlation").attr("ActivityID"))
	if n, ok := number(sys.value("Keywords")); ok {
		winlog["keywords"] = fmt.Sprintf("0x%x", n)
		if n&0x20000000000000 != 0 {
			event["outcome"] = "success"
		} else if n&0x10000000000000 != 0 {
			event["outcome"] = "failure"
		}
	}
	if s := sys.child("Security").attr("UserID"); s != "" {
		winlog["user"] = map[string]any{"identifier": s}
	}
	if pid, ok := number(sys.child("Execution").attr("ProcessID")); ok {
		p := map[string]any{"pid": pid}
		if tid, ok := number(sys.child("Execution").attr("ThreadID")); ok {
			p["thread"] = map[string]any{"id": tid}
		}
		winlog["process"] = p
	}
	if level, ok := number(sys.value("Level")); ok && level < 6 {
		out["log"] = map[string]any{"level": [...]string{"information", "critical", "error", "warning", "information", "verbose"}[level]}
	}
	if s := sys.value("Computer"); s != "" {
		out["host"] = map[string]any{"name": s}
	}
	if at, err := time.Parse(time.RFC3339Nano, sys.child("TimeCreated").attr("SystemTime")); err == nil && at.Year() >= 1970 {
		out["@timestamp"] = at.Round(time.Microsecond).UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	if data := ev.child("EventData"); data != nil {
		winlog["event_data"] = eventData(data)
	}
	if data := ev.child("UserData"); data != nil {
		winlog["user_data"] = plain(data, 0)
	}
	out["winlog"], out["event"] = winlog, event
	line, err := json.Marshal(out)
	return line, err == nil
}

func number(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 0, 64)
	return n, err == nil
}

// eventData names each <Data> by its attribute, those without one param1, param2, … as winlogbeat does.
func eventData(data *element) map[string]any {
	out := map[string]any{}
	for i, c := range data.children {
		name := c.name
		if name == "Data" {
			if name = c.attr("Name"); name == "" {
				name = "param" + strconv.Itoa(i+1)
			}
		}
		if len(c.children) > 0 {
			out[name] = plain(c, 0)
		} else if c.text.Len() > 0 {
			out[name] = c.text.String()
		}
	}
	return out
}

// plain makes maps of elements: attributes and children by name, those of one name as a list, the text of an element that has either as "Value".
func plain(e *element, depth int) map[string]any {
	out := map[string]any{}
	if depth > maxDepth {
		return out
	}
	for _, a := range e.attrs {
		if a.value != "" && a.name != "xmlns" {
			out[a.name] = a.value
		}
	}
	if e.text.Len() > 0 {
		out["Value"] = e.text.String()
	}
	for _, c := range e.children {
		var v any = c.text.String()
		if m := plain(c, depth+1); len(c.children) > 0 || len(m) > 1 || len(m) == 1 && c.text.Len() == 0 {
			v = m
		} else if c.text.Len() == 0 {
			continue
		}
		switch was := out[c.name].(type) {
		case nil:
			out[c.name] = v
		case []any:
			out[c.name] = append(was, v)
		default:
			out[c.name] = []any{was, v}
		}
	}
	return out
}
