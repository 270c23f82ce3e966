// Package listen takes syslog off the network: UDP datagrams, TCP streams and TLS (RFC 5425; octet counting of RFC 6587, lines ended by LF
// or NUL; found out message by message). Its sub-packages take what comes in other ways; they give their lines to the same Sink.
//
// It reads sockets and gives lines to a Sink, which keeps them before it answers; it writes nothing itself. A line is everything between
// two frame ends, without line end, as it came: no header is required and no character set. A line longer than Options.MaxLine is cut, the
// rest of it is passed over, and it is counted.
//
// While the Sink waits (a full disk), nothing is read: TCP senders are slowed down by their own send windows, and what UDP senders lose is
// counted by the kernel and read from it (Stats.KernelDrops).
//
// Strangers reach these ports, so all they can take is bounded: connections in all and by address, memory for a line, time for a line that
// does not end. A connection that says nothing is left open, because most syslog senders lose a message when they find theirs closed; only
// when the table is full does the one that has been silent longest make room.
//
// When its context ends a listener reads what the kernel still holds, gives that to the Sink and returns; what a crash leaves in the
// kernel's buffers is lost, as syslog has no acknowledgement.
package listen
