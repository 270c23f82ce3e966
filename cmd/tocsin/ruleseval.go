package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"tocsin/sigma"
)

// chunk is some lines of a file on their way through the workers; done gets the result, so that output keeps the order of input. Chunks are
// used again: their memory would otherwise be most of what has to be cleared and collected.
type chunk struct {
	file  string
	line  int // of the first line, from 0
	buf   []byte
	lines []byte // of buf
	out   []byte
	done  chan result
}

type result struct {
	out    []byte
	errs   []string
	events int
	routed int
}

var chunks = sync.Pool{New: func() any { return &chunk{done: make(chan result, 1)} }}

// keepChunk bounds what is kept of a chunk: one huge line must not pin its memory.
const keepChunk = 1 << 20

func (c *chunk) free() {
	if cap(c.buf) <= keepChunk && cap(c.out) <= keepChunk {
		chunks.Put(c)
	}
}

func rulesEval(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var dirs, pipelines []string
	var source sigma.LogSource
	var stats bool
	workers := runtime.GOMAXPROCS(0)
	files, code, done := rulesFlags("eval", args, stdout, stderr, func(f *flag.FlagSet) {
		f.Func("rules", "", func(s string) error { dirs = append(dirs, s); return nil })
		f.Func("pipeline", "", func(s string) error { pipelines = append(pipelines, s); return nil })
		f.Func("logsource", "", func(s string) (err error) { source, err = sigma.ParseLogSource(s); return err })
		f.BoolVar(&stats, "stats", false, "")
		f.IntVar(&workers, "workers", workers, "")
	})
	if done {
		return code
	}
	if len(files) == 0 || len(dirs) == 0 || workers < 1 {
		fmt.Fprintf(stderr, "tocsin rules eval: give --rules DIR and at least one file of events\n\n%s", rulesUsage)
		return 2
	}
	loading := time.Now()
	debug.SetGCPercent(400) // what is loaded stays; looking it through again and again would take a third of the time
	c, errs, err := readPiped(dirs, pipelines)
	if err != nil {
		fmt.Fprintf(stderr, "tocsin rules eval: %v\n", err)
		return 1
	}
	names := &sigma.Names{}
	engine, err := sigma.Compile(c, sigma.Options{Schema: names})
	if err != nil {
		fmt.Fprintf(stderr, "tocsin rules eval: %v\n", err)
		return 1
	}
	if errs = append(errs, engine.Errors...); len(errs) > 0 {
		for _, x := range errs {
			fmt.Fprintln(stderr, x)
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	routers := make([]*sigma.Router, workers)
	for i := range routers { // before the first event is decoded: they add names
		if routers[i], err = sigma.NewRouter(engine); err != nil {
			fmt.Fprintf(stderr, "tocsin rules eval: %v\n", err)
			return 1
		}
		routers[i].Within = source
	}
	var other *sigma.Set
	if source == (sigma.LogSource{}) {
		engine.PrepareWindows()
	} else {
		other = engine.Set(sigma.Source{LogSource: source})
	}
	work, order := make(chan *chunk), make(chan *chunk, 4*workers)
	var wg sync.WaitGroup
	for _, r := range routers {
		wg.Go(func() {
			w := &evalWorker{engine: engine, router: r, dec: sigma.Decoder{Names: names}, other: other}
			for c := range work {
				c.done <- w.run(c)
			}
		})
	}
	began := time.Now()
	var readErr error
	go func() {
		defer close(order)
		defer close(work)
		for _, f := range files {
			if err := readChunks(ctx, f, stdin, work, order); err != nil {
				readErr = err
				return
			}
		}
	}()
	out := bufio.NewWriterSize(stdout, 1<<16)
	var events, routed, bad int
	var writeErr error
	for c := range order {
		r := <-c.done
		events, routed, bad = events+r.events, routed+r.routed, bad+len(r.errs)
		for _, e := range r.errs {
			fmt.Fprintln(stderr, e)
		}
		if writeErr == nil {
			if _, writeErr = out.Write(r.out); writeErr != nil {
				stop()
			}
		}
		c.out = r.out
		c.free()
	}
	wg.Wait()
	if err := out.Flush(); writeErr == nil {
		writeErr = err
	}
	took := time.Since(began)
	if stats {
		fmt.Fprintf(stderr, "%d events in %.3f s: %.0f events/s with %d workers; %d rules loaded and indexed in %.2f s\n", events, took.Seconds(), float64(events)/took.Seconds(), workers, len(engine.Rules), began.Sub(loading).Seconds())
	}
	if events > 0 && routed == 0 {
		fmt.Fprintln(stderr, "tocsin rules eval: no event could be assigned to a log source; only Windows events (field Channel) are recognised, for others give --logsource, such as --logsource product=linux,service=sshd")
	}
	switch err := errors.Join(readErr, writeErr, context.Cause(ctx)); {
	case err != nil:
		fmt.Fprintf(stderr, "tocsin rules eval: %v\n", err)
		return 1
	case bad > 0 || len(errs) > 0:
		return 1
	}
	return 0
}

type evalWorker struct {
	engine *sigma.Engine
	router *sigma.Router
	dec    sigma.Decoder
	rec    sigma.Record
	m      sigma.Matcher
	ids    []int32
	other  *sigma.Set // for what is no Windows event; nil: unknown
}

func (w *evalWorker) run(c *chunk) result {
	r := result{out: c.out[:0]}
	file, _ := json.Marshal(c.file)
	lines := c.lines
	for n := c.line; len(lines) > 0; n++ {
		line, rest, _ := bytes.Cut(lines, []byte{'\n'})
		lines = rest
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		r.events++
		err := w.dec.Decode(&w.rec, line)
		w.ids = w.ids[:0]
		if err == nil {
			set := w.router.Route(&w.rec)
			if set == nil {
				set = w.other
			}
			if set != nil {
				r.routed++
				w.ids = w.m.Match(set, &w.rec, w.ids)
				slices.Sort(w.ids) // as the rules were read
			}
		} else {
			r.errs = append(r.errs, fmt.Sprintf("%s:%d: %v", c.file, n, err))
		}
		r.out = append(append(r.out, `{"file":`...), file...)
		r.out = strconv.AppendInt(append(r.out, `,"line":`...), int64(n), 10)
		r.out = append(r.out, `,"rules":[`...)
		for i, id := range w.ids {
			if i > 0 {
				r.out = append(r.out, ',')
			}
			label, _ := json.Marshal(w.engine.Rules[id].Label())
			r.out = append(r.out, label...)
		}
		r.out = append(r.out, ']')
		if err != nil {
			text, _ := json.Marshal(err.Error())
			r.out = append(append(r.out, `,"error":`...), text...)
		}
		r.out = append(r.out, '}', '\n')
	}
	return r
}

// maxEventLine bounds one event.
const maxEventLine = 64 << 20

// readChunks cuts a file into pieces of whole lines and hands them out.
func readChunks(ctx context.Context, name string, stdin io.Reader, work, order chan<- *chunk) error {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	line := 0
	const size = 256 << 10
	var rest []byte
	for {
		c := chunks.Get().(*chunk)
		if cap(c.buf) < size+len(rest) {
			c.buf = make([]byte, size+len(rest)+size/4)
		}
		buf := c.buf[:size+len(rest)]
		copy(buf, rest)
		n, err := io.ReadFull(in, buf[len(rest):])
		buf = buf[:len(rest)+n]
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		cut := bytes.LastIndexByte(buf, '\n') + 1
		if end {
			cut = len(buf)
		}
		if cut == 0 && !end {
			if rest = append(rest[:0], buf...); len(rest) > maxEventLine {
				return fmt.Errorf("%s:%d: a line is longer than %d MiB", name, line, maxEventLine>>20)
			}
			continue
		}
		if cut > 0 {
			rest = append(rest[:0], buf[cut:]...)
			c.file, c.line, c.lines = name, line, buf[:cut]
			line += bytes.Count(c.lines, []byte{'\n'})
			select {
			case order <- c:
			case <-ctx.Done():
				return nil // whoever stopped says why
			}
			// A chunk that is in order must be worked on, or its reader would wait for ever.
			work <- c
		}
		if end {
			return nil
		}
	}
}
