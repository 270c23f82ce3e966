package main

import (
	"fmt"
	"regexp"
	"strings"
)

// settings that a request may give. Everything else is refused, so that a caller's mistake is seen here and not on the
// day the store moves to a cluster with other defaults. The value says what is done with it.
var settings = map[string]bool{
	"readonly": true, "max_execution_time": true, "timeout_overflow_mode": true,
	"max_rows_to_read": true, "max_bytes_to_read": true, "max_result_rows": true, "max_result_bytes": true,
	"max_memory_usage": true, "max_bytes_before_external_group_by": true, "max_bytes_before_external_sort": true,
	"max_threads": true, "max_insert_threads": true, "max_block_size": true, "os_thread_priority": true, "priority": true,
	"insert_deduplicate": true, "insert_deduplication_token": true, "async_insert": true,
	"max_insert_block_size": true, "min_insert_block_size_rows": true, "min_insert_block_size_bytes": true,
	"max_partitions_per_insert_block":                    true,
	"deduplicate_blocks_in_dependent_materialized_views": true,
	"additional_table_filters":                           true,
	"mutations_sync":                                     true,
	"lightweight_deletes_sync":                           true,
	"use_skip_indexes":                                   true,
	"use_query_condition_cache":                          true,
	"optimize_read_in_order":                             true,
	"optimize_throw_if_noop":                             true,
	"output_format_native_encode_types_in_binary_format": true,
	"log_comment":                                        false, // the shim's own: it finds the statement to kill by it
	"cancel_http_readonly_queries_on_client_close":       false, // the shim always does
	"query_id":                      false,
	"wait_end_of_query":             false,
	"compress":                      false,
	"session_timezone":              true,
	"date_time_input_format":        true,
	"input_format_null_as_default":  true,
	"final":                         true,
	"optimize_skip_unused_shards":   true,
	"insert_distributed_sync":       false,
	"distributed_foreground_insert": false,
	"insert_quorum":                 false,
	"wait_for_async_insert":         false,
	"enable_http_compression":       false,
	"output_format_native_use_flattened_dynamic_and_json_serialization": true,
}

// quote writes s as an SQL string.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// verb is the first word of the statement in capitals, after blanks and comments.
func verb(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n;")
		switch {
		case strings.HasPrefix(sql, "--"), strings.HasPrefix(sql, "#!"):
			_, rest, ok := strings.Cut(sql, "\n")
			if !ok {
				return ""
			}
			sql = rest
		case strings.HasPrefix(sql, "/*"):
			_, rest, ok := strings.Cut(sql[2:], "*/")
			if !ok {
				return ""
			}
			sql = rest
		case strings.HasPrefix(sql, "("):
			return "("
		default:
			end := strings.IndexFunc(sql, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') })
			if end < 0 {
				end = len(sql)
			}
			return strings.ToUpper(sql[:end])
		}
	}
}

var insertFormat = regexp.MustCompile(`(?is)^(.*?)\s+FORMAT\s+([A-Za-z0-9]+)\s*;?\s*$`)

// splitInsert takes "INSERT INTO t (a, b) FORMAT Native" apart. ok is false when the statement carries no FORMAT at its
// end: then it is an INSERT ... SELECT or has inline VALUES.
func splitInsert(sql string) (statement, format string, ok bool) {
	m := insertFormat.FindStringSubmatch(sql)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// setStatement builds the one SET that gives a fresh connection its settings. readonly comes last, because nothing can be
// set after it.
func setStatement(given map[string]string) (string, error) {
	var b strings.Builder
	b.WriteString("SET implicit_select=0, async_insert=0")
	for name, value := range given {
		apply, known := settings[name]
		if !known {
			return "", &engineError{115, fmt.Sprintf("Code: 115. DB::Exception: the event store does not take the setting %q (UNKNOWN_SETTING)", name)}
		}
		if !apply || name == "readonly" || name == "async_insert" {
			continue
		}
		fmt.Fprintf(&b, ", %s=%s", name, quote(value))
	}
	if ro, ok := given["readonly"]; ok && ro != "0" {
		// readonly=2 would let the caller lift its own limits.
		if ro != "1" {
			return "", &engineError{164, "Code: 164. DB::Exception: readonly must be 0 or 1 here (READONLY)"}
		}
		b.WriteString(", readonly='1'")
	}
	return b.String(), nil
}
