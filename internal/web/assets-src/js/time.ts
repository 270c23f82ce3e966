// Relative times ("2 minutes ago") are written by the server and kept true here.
export function relative(seconds: number): string {
  const s = Math.abs(seconds);
  const say = (n: number, unit: string) => {
    const text = n + " " + unit + (n === 1 ? "" : "s");
    return seconds < 0 ? "in " + text : text + " ago";
  };
  if (s < 5) return "just now";
  if (s < 60) return say(Math.floor(s), "second");
  if (s < 3600) return say(Math.floor(s / 60), "minute");
  if (s < 2 * 86400) return say(Math.floor(s / 3600), "hour");
  return say(Math.floor(s / 86400), "day");
}

export function keepTimesTrue(): void {
  const tick = () => {
    const now = Date.now();
    document.querySelectorAll<HTMLElement>("[data-ago]").forEach((el) => {
      const text = relative((now - Number(el.dataset.ago)) / 1000);
      if (el.textContent !== text) el.textContent = text;
    });
  };
  setInterval(tick, 5000);
}
