package notify

import (
	"strings"
	"testing"
)

// People read where an address is by name, programs get the code as well.
func TestCountryByName(t *testing.T) {
	m, err := NewMailer(MailOptions{Host: "127.0.0.1", Port: 25, From: "tocsin@hub.example", TLS: "none"})
	if err != nil {
		t.Fatal(err)
	}
	a := sample
	a.Country, a.CountryName = "NL", "Netherlands"
	msg, err := m.compose("key", mailPayload{To: "head@school.example", Message: a})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range msg.GetParts() {
		b, err := part.GetContent()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "(Netherlands; ") || strings.Contains(string(b), "NL") {
			t.Errorf("%s:\n%s", part.GetContentType(), b)
		}
	}
}
