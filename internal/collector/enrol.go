package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"tocsin/internal/collector/send"
	"tocsin/internal/keys"
)

// EnrolOptions are what enrolment needs.
type EnrolOptions struct {
	Config  Config // only Dir is used
	Token   string
	Name    string // of the machine, for people; default its host name
	Version string
	Again   bool // replace an enrolment that is there
	Now     func() time.Time
}

// ErrEnrolled means that the folder belongs to an enrolled collector already.
var ErrEnrolled = errors.New("this folder belongs to a collector that is enrolled already")

// Enrol joins a scheme: it checks that the hub is the one the token names before it sends the token's secret, makes the collector's keys,
// and keeps what the hub answered. After a failure on the way it may be called again with the same token, as long as the hub has not
// answered; keys that were made are used again.
func Enrol(ctx context.Context, o EnrolOptions) (send.Enrolment, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	token, err := keys.ParseToken(o.Token)
	if err != nil {
		return send.Enrolment{}, err
	}
	if o.Name == "" {
		o.Name, _ = os.Hostname()
	}
	if err := os.MkdirAll(o.Config.Dir, 0o700); err != nil {
		return send.Enrolment{}, fmt.Errorf("make the collector's folder: %w", err)
	}
	lock, err := lockDir(o.Config.Dir)
	if err != nil {
		return send.Enrolment{}, err
	}
	defer unlock(lock)
	if _, err := os.Stat(o.Config.enrolmentFile()); err == nil && !o.Again {
		return send.Enrolment{}, ErrEnrolled
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return send.Enrolment{}, err
	}
	e, err := send.Enrol(ctx, token, o.Config.KeyDir(), o.Name, o.Version, o.Now())
	if err != nil {
		return e, err
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return e, err
	}
	if err := writeFile(o.Config.enrolmentFile(), append(b, '\n')); err != nil {
		return e, fmt.Errorf("keep the enrolment: %w", err)
	}
	return e, nil
}
