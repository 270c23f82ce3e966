package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"tocsin/sigma"
)

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
	e := &evaluation{engine: engine, names: names, within: source, workers: workers, size: chunkSize}
	if err := e.prepare(); err != nil {
		fmt.Fprintf(stderr, "tocsin rules eval: %v\n", err)
		return 1
	}
	began := time.Now()
	out, err := e.run(ctx, files, stdin, stdout, stderr)
	took := time.Since(began)
	if stats {
		fmt.Fprintf(stderr, "%d events in %.3f s: %.0f events/s with %d workers; %d rules loaded and indexed in %.2f s\n", out.events, took.Seconds(), float64(out.events)/took.Seconds(), workers, len(engine.Rules), began.Sub(loading).Seconds())
	}
	if out.events > 0 && out.routed == 0 {
		fmt.Fprintln(stderr, "tocsin rules eval: no event could be assigned to a log source; only Windows events (field Channel) are recognised, for others give --logsource, such as --logsource product=linux,service=sshd")
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "tocsin rules eval: %v\n", err)
		return 1
	case out.bad > 0 || len(errs) > 0:
		return 1
	}
	return 0
}

// evaluation runs files of events through the rules, with some workers that share nothing but the files and the output.
type evaluation struct {
	engine  *sigma.Engine
	names   *sigma.Names
	within  sigma.LogSource // of all events, if known
	workers int
	size    int // of a chunk

	routers []*sigma.Router
	other   *sigma.Set
}

// prepare makes what must be there before the first event is decoded: routers add names.
func (e *evaluation) prepare() error {
	for range e.workers {
		r, err := sigma.NewRouter(e.engine)
		if err != nil {
			return err
		}
		r.Within = e.within
		e.routers = append(e.routers, r)
	}
	if e.within == (sigma.LogSource{}) {
		e.engine.PrepareWindows()
	} else {
		e.other = e.engine.Set(sigma.Source{LogSource: e.within})
	}
	return nil
}

func (e *evaluation) run(ctx context.Context, files []string, stdin io.Reader, stdout, stderr io.Writer) (*orderedOutput, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	src := &eventSource{names: files, stdin: stdin, size: e.size}
	out := newOrderedOutput(stdout, stderr, 4*e.workers, stop)
	var wg sync.WaitGroup
	for _, r := range e.routers {
		wg.Go(func() {
			w := &evalWorker{engine: e.engine, router: r, dec: sigma.Decoder{Names: e.names}, other: e.other}
			for src.next(ctx, &w.chunk) {
				w.run()
				out.put(&w.chunk)
			}
		})
	}
	wg.Wait()
	return out, errors.Join(src.Err(), out.err, context.Cause(ctx))
}

type evalWorker struct {
	engine *sigma.Engine
	router *sigma.Router
	dec    sigma.Decoder
	rec    sigma.Record
	m      sigma.Matcher
	ids    []int32
	other  *sigma.Set // for what is no Windows event; nil: unknown
	chunk  chunk
}

// run makes of the lines of its chunk what is to be written.
func (w *evalWorker) run() {
	c := &w.chunk
	c.out, c.errs, c.events, c.routed = c.out[:0], c.errs[:0], 0, 0
	file, _ := json.Marshal(c.file)
	lines := c.lines
	for n := c.line; len(lines) > 0; n++ {
		line, rest, _ := bytes.Cut(lines, []byte{'\n'})
		lines = rest
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		c.events++
		err := w.dec.Decode(&w.rec, line)
		w.ids = w.ids[:0]
		if err == nil {
			set := w.router.Route(&w.rec)
			if set == nil {
				set = w.other
			}
			if set != nil {
				c.routed++
				w.ids = w.m.Match(set, &w.rec, w.ids)
				slices.Sort(w.ids) // as the rules were read
			}
		} else {
			c.errs = append(c.errs, fmt.Sprintf("%s:%d: %v", c.file, n, err))
		}
		c.out = append(append(c.out, `{"file":`...), file...)
		c.out = strconv.AppendInt(append(c.out, `,"line":`...), int64(n), 10)
		c.out = append(c.out, `,"rules":[`...)
		for i, id := range w.ids {
			if i > 0 {
				c.out = append(c.out, ',')
			}
			label, _ := json.Marshal(w.engine.Rules[id].Label())
			c.out = append(c.out, label...)
		}
		c.out = append(c.out, ']')
		if err != nil {
			text, _ := json.Marshal(err.Error())
			c.out = append(append(c.out, `,"error":`...), text...)
		}
		c.out = append(c.out, '}', '\n')
	}
}
