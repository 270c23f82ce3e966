package load

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// Quantiles of a set of values, in milliseconds.
type Quantiles struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// quantiles sorts ms. The q-quantile is the smallest value with at least a share of q at or below it.
func quantiles(ms []float64) Quantiles {
	if len(ms) == 0 {
		return Quantiles{}
	}
	slices.Sort(ms)
	at := func(q int) float64 { return ms[(len(ms)*q+99)/100-1] }
	return Quantiles{N: len(ms), P50: at(50), P95: at(95), P99: at(99), Max: ms[len(ms)-1]}
}

// process is what /proc says of one.
type process struct {
	name string
	cpu  float64 // seconds, children that have ended included
	rss  float64 // MiB
}

// clockTick is USER_HZ, which is 100 on every architecture Linux has.
const clockTick = 100

// readProcess reads /proc/PID/stat (proc(5)). The name stands in brackets and may hold anything.
func readProcess(pid int) (process, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, err
	}
	open, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 22 {
		return process{}, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	number := func(i int) float64 {
		n, _ := strconv.ParseFloat(f[i], 64) // the kernel writes numbers
		return n
	}
	return process{
		name: string(b[open+1 : end]),
		cpu:  (number(11) + number(12) + number(13) + number(14)) / clockTick, // utime stime cutime cstime
		rss:  number(21) * float64(os.Getpagesize()) / (1 << 20),
	}, nil
}

// family reads a process and all below it, by name.
func family(pid int) map[string]process {
	out := map[string]process{}
	var walk func(pid int)
	walk = func(pid int) {
		p, err := readProcess(pid)
		if err != nil {
			return // it ended meanwhile
		}
		sum := out[p.name]
		sum.name, sum.cpu, sum.rss = p.name, sum.cpu+p.cpu, sum.rss+p.rss
		out[p.name] = sum
		tasks, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "children"))
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue
			}
			for _, c := range strings.Fields(string(b)) {
				if n, err := strconv.Atoi(c); err == nil {
					walk(n)
				}
			}
		}
	}
	walk(pid)
	return out
}

// peer is the process that listens on a unix socket.
func peer(ctx context.Context, socket string) (int, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if inner != nil {
		return 0, inner
	}
	return int(cred.Pid), nil
}

// usage reads the CPU time of the hub's processes, and notes it when there is an earlier reading to subtract.
func (r *run) usage(ctx context.Context, then map[string]process) (map[string]process, error) {
	pid, err := peer(ctx, r.socket)
	if err != nil {
		return nil, fmt.Errorf("find the hub's process: %w", err)
	}
	now := family(pid)
	if then == nil {
		return now, nil
	}
	for name, p := range now {
		r.res.CPU[name] = p.cpu - then[name].cpu
		r.res.RSS[name] = p.rss
	}
	return now, nil
}

// cost relates the CPU time to what was done with it.
func (r *run) cost(done uint64) {
	sum := 0.0
	for _, s := range r.res.CPU {
		sum += s
	}
	r.res.CPUMillion = sum / max(float64(done), 1) * 1e6
}

func pairs(m map[string]float64, format string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = fmt.Sprintf(format, k, m[k])
	}
	return strings.Join(parts, ", ")
}
