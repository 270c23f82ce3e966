package web

import (
	"net/http"
	"strings"
	"time"
)

// contentSecurityPolicy forbids everything but this program's own files: no
// inline script or style, no other host, no frame around the page.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// secureHeaders sets on every answer what keeps a browser on our side. hsts is
// for installations that are reached over TLS only.
func secureHeaders(hsts bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("X-Frame-Options", "DENY")
		if hsts {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		// Pages hold one person's view; only assets set a kinder value.
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// How long a request may take to send its form, and an answer to be read, before the connection is closed: whoever sends a byte a minute
// must not hold one for ever. Live streams set their own.
const (
	readWithin   = 30 * time.Second
	importWithin = 5 * time.Minute
	writeWithin  = 2 * time.Minute
)

func paced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, now := http.NewResponseController(w), time.Now()
		_ = c.SetWriteDeadline(now.Add(writeWithin)) // a recorder in a test has no connection
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			within := readWithin
			if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
				within = importWithin
			}
			_ = c.SetReadDeadline(now.Add(within))
		}
		next.ServeHTTP(w, r)
	})
}
