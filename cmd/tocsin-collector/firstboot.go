package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"tocsin/internal/collector/firstboot"
)

func firstbootCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	var https, http, console string
	rest, err := parseFlags("firstboot", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.StringVar(&https, "https", "0.0.0.0:443", "where the page is served")
		fs.StringVar(&http, "http", "0.0.0.0:80", "where browsers are sent on to the page; empty: nowhere")
		fs.StringVar(&console, "console", "", "file that the code is shown on; default standard output")
	})
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: firstboot takes no arguments, only options", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	var out io.Writer = e.stdout
	if console != "" {
		f, err := os.OpenFile(console, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	o := firstboot.Options{Config: c, Settings: s.fileName(), Version: programVersion(), Console: out, Logger: newLogger(e.stderr, c.Log)}
	if o.HTTPS, err = net.Listen("tcp", https); err != nil {
		return err
	}
	if http != "" {
		if o.HTTP, err = net.Listen("tcp", http); err != nil {
			o.HTTPS.Close()
			return err
		}
	}
	return firstboot.Serve(ctx, o)
}
