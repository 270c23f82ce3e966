// Package files reads log files: it follows files that grow (Options.Paths), and takes whole files out of a folder (Options.Drop).
//
// A followed file is known by device and inode and by its first bytes, so that a new file in a reused inode is read from its start. Rotation
// by renaming is followed to the old file's end, also when it happened while the program was not running and the old file still lies in the
// same folder. A file that became shorter, or whose first bytes changed (copytruncate), is read from its start. The last line is taken when
// its line end is there, or when its file was rotated away.
//
// Of the drop folder every file that has stopped changing is read to its end and then moved to done/ below it, or, when it cannot be read, to
// failed/ with the reason beside it (NAME.reason.txt). Hidden files and names ending in .tmp, .part or .filepart are somebody's unfinished
// work and are left alone. What is a decoder's (Options.Decoders) is given to it; gzip and zstd are opened; everything else is lines.
//
// Places in the files are written to Options.State (JSON) about once a second, after the sink has made durable what came before them. After a
// crash the sink is asked what it received since (listen.Recaller), and exactly that is passed over: no line is lost and none comes twice.
//
// It counts lines and bytes, rotations, truncations, files that were rotated away unread, and files done and failed.
package files
