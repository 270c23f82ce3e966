// Package batch is the wire and evidence format: what a collector sends, what the hub keeps, what a court is shown.
//
// # A submission
//
// One line of JSON, the DSSE envelope of the manifest; a newline; one zstd frame, the body. The same bytes are the HTTP request, the file
// on the collector's disk and the hub's blob. The name of a batch is the SHA-256 of its envelope.
//
//	{"payloadType":"application/vnd.tocsin.batch.v1+json","payload":"…","signatures":[{"keyid":"…","sig":"…"}]}⏎
//	28 b5 2f fd …
//
// With ordinary tools: `head -n1 FILE | jq -r .payload | base64 -d` shows the manifest and `tail -n+2 FILE | zstd -d` the events.
//
// # The body
//
// NDJSON. The first line is {"salt":"64 hexadecimal digits"}, each further line one event (I-JSON, RFC 7493: no repeated member, valid
// UTF-8). Event i, from 0, is the RFC 6962 leaf
//
//	SHA-256(0x00 ‖ HMAC-SHA256(salt, i as 8 bytes big endian) ‖ line)
//
// and the manifest signs the tree's root: one event can be shown without its neighbours and without the salt ([Disclose]), and nobody can
// guess an event and test the guess against a published digest.
//
// # What is refused, and when
//
// [SplitSubmission] refuses by size. [Verify] refuses by signature, unknown version, unknown critical member and limits, before it looks at
// the body. [Open] compares the body's digest before it decompresses; it walks the frame's block headers, so that a frame which could not
// hold the announced size, or more than one frame, or a window over [MaxWindow], is refused before memory is taken; and it decompresses into
// exactly the announced size.
//
// The package touches no file and keeps no state.
package batch
