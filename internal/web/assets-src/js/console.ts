import htmx from "./htmx-global";
import "htmx.org/dist/ext/hx-sse.js";
import "htmx.org/dist/ext/hx-upsert.js";
import "./portal";
import { queue } from "./queue";

queue(htmx);
