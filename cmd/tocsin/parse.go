package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"tocsin/internal/collector/parse"
	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// maxParseLine is the longest line `tocsin parse` reads whole, in bytes. What a line has beyond it is left out, the line itself
// still gives one object.
const maxParseLine = 1 << 20

// runParse is `tocsin parse`: lines on stdin to one JSON object each on stdout, in order; {} for a line that no parser
// understands. Exit codes: 0 done, 1 reading or writing failed, 2 the command line is wrong.
func runParse(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("tocsin parse", flag.ContinueOnError)
	fs.SetOutput(stderr)
	format := fs.String("format", "auto", "auto, or the `name` of the format to try first")
	list := fs.Bool("formats", false, "list the formats' names, one a line, and stop")
	folder := fs.String("packs", "", "folder of parser packs (NAME/parser.yaml) to use beside, or in place of, those of the program")
	zone := fs.String("timezone", "Europe/London", "time zone of devices that write none")
	fs.Usage = func() {
		fmt.Fprintln(stderr, "Usage: tocsin parse [--format auto|NAME] [--timezone ZONE] [--packs FOLDER] < lines > events.ndjson")
		fmt.Fprintln(stderr, "       tocsin parse --formats")
		fmt.Fprintln(stderr, "Reads log lines and writes one JSON object with flat ECS names for each, {} when a line is not understood.")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "tocsin parse: %q is not a flag; lines are read from standard input (tocsin parse < FILE)\n", fs.Arg(0))
		return 2
	}
	library := parse.NewLibrary()
	if *folder != "" {
		more, err := packs.Load(os.DirFS(*folder))
		var set *packs.Set
		if err == nil {
			set, err = library.Packs().With(more.Packs()...)
		}
		if err != nil {
			fmt.Fprintf(stderr, "tocsin parse: parser packs in %s: %v\n", *folder, err)
			return 2
		}
		library.Use(set)
	}
	names := parse.Formats()
	for _, p := range library.Packs().Packs() {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	if *list {
		slices.Sort(names)
		if _, err := fmt.Fprintln(stdout, strings.Join(names, "\n")); err != nil {
			fmt.Fprintf(stderr, "tocsin parse: writing standard output: %v\n", err)
			return 1
		}
		return 0
	}
	if *format != "auto" && !slices.Contains(names, *format) {
		fmt.Fprintf(stderr, "tocsin parse: no format is called %q. %s\nWithout --format each line's own is found; tocsin parse --formats lists all names.\n", *format, parse.FormatHint(*format, names))
		return 2
	}
	loc, err := time.LoadLocation(*zone)
	if err != nil {
		fmt.Fprintf(stderr, "tocsin parse: no time zone is called %q; use a name such as Europe/London or UTC\n", *zone)
		return 2
	}
	if err := parseLines(ctx, parse.New(parse.Options{Location: loc, Library: library}), *format, stdin, stdout); err != nil {
		fmt.Fprintf(stderr, "tocsin parse: %v\n", err)
		return 1
	}
	return 0
}

func parseLines(ctx context.Context, set *parse.Set, format string, stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReaderSize(stdin, 1<<16)
	out := bufio.NewWriterSize(stdout, 1<<16)
	var e event.Event
	var line, buf []byte
	for {
		line = line[:0]
		var err error
		for {
			var part []byte
			part, err = in.ReadSlice('\n')
			if room := maxParseLine - len(line); len(part) > room {
				line = append(line, part[:room]...)
			} else {
				line = append(line, part...)
			}
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if err != nil && err != io.EOF {
			return errors.Join(fmt.Errorf("reading standard input: %w", err), out.Flush())
		}
		if len(line) > 0 {
			e.Reset()
			e.SetRaw(line)
			set.Parse(&e, format)
			if e.Len() == 0 {
				e.Time = 0
			}
			buf = append(e.AppendJSON(buf[:0]), '\n')
			if _, werr := out.Write(buf); werr != nil {
				return fmt.Errorf("writing standard output: %w", werr)
			}
		}
		if err == io.EOF {
			if err := out.Flush(); err != nil {
				return fmt.Errorf("writing standard output: %w", err)
			}
			return nil
		}
		// A person who pipes a live log wants to see each line; a file is written in large pieces.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return fmt.Errorf("writing standard output: %w", err)
			}
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), out.Flush())
		}
	}
}
