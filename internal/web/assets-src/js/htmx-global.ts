// The extensions look for htmx on the window, so it has to be there before they
// are read.
import htmx from "htmx.org/dist/htmx.esm.js";
(window as any).htmx = htmx;
export default htmx;
