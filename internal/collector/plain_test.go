package collector

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// A revoked certificate is refused in the handshake, without a word from the hub: the log says what that means and what to do.
func TestPlain(t *testing.T) {
	refused := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	if s := plain(refused); !strings.Contains(s, "revoked in the portal") || !strings.Contains(s, "enrol TOKEN --again") || !strings.Contains(s, "bad certificate") {
		t.Error(s)
	}
	if s := plain(errors.New("no route")); s != "no route" {
		t.Error(s)
	}
}
