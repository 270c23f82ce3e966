// Package keys holds every key of the scheme and what is signed or proved with them. No other package opens a key file.
//
// # The keys
//
// An offline scheme root signs a versioned trust list that names one active key per [Purpose]. A collector knows the root by its fingerprint,
// which comes in its enrolment token, and everything else through the list. Each role of the hub opens only the keys of its own purposes
// ([Open]); questions, commands and packs are signed away from the hub.
//
//	keys/                     0700, the hub's; backed up apart from everything else
//	  trust.json              the trust list in force and the root rotations that lead to it: {"rotations":[…],"current":…}
//	  PURPOSE.key             PKCS #8 PEM, 0600: hub-tls, collector-ca (ECDSA P-256); receipts, checkpoints, indicator-sets (Ed25519)
//	  collector-ca.crt        the authority's certificate
//	  tenants/ID/YYYY-MM.key  key id and AES-256 key of one member's month, hexadecimal; never in an ordinary backup
//	  records.secret          what the hub seals in its database with: 64 hexadecimal digits
//	offline/                  0700, on another medium: root.key, packs.key, questions.key, commands.key
//	collector's folder        0700: batch.key (Ed25519), tls.key (ECDSA P-256), tls.crt, trust.json, archive.secret, pseudonyms.secret
//	collector's tls/          0700: authority.key, authority.crt, server.key, server.crt: what it shows to the site's own devices ([Listener])
//
// # What is signed
//
// Every signed thing is a DSSE envelope (github.com/secure-systems-lab/dsse) with Ed25519 in one canonical form ([OpenEnvelope] refuses any
// other spelling), so that the SHA-256 of an envelope names its content and its signer. The id of a key is the hexadecimal SHA-256 of its
// DER SubjectPublicKeyInfo, what `openssl pkey -pubin -outform DER | sha256sum` prints.
//
// # After a crash
//
// Every file is written beside its place, flushed, renamed, and its folder flushed. [CreateScheme] writes trust.json last: a folder without
// it is unfinished and is begun anew.
package keys
