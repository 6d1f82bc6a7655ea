// The status line: announces one sentence at a time to screen readers.

const ANNOUNCE_INTERVAL_MS = 5000; // between two announcements

// Returns announce(sentence, isVisible): a polite live region with at most one sentence in five seconds, of which the newest wins; with
// `isVisible` it is also on screen.
function createAnnouncer(statusLine) {
  let pending = null, timer = 0, arrivedCount = 0;
  const showPending = () => {
    timer = 0;
    statusLine.classList.toggle("shown", Boolean(pending?.[1]));
    if (!pending) return;
    statusLine.textContent = pending[0];
    pending = null;
    arrivedCount = 0;
    timer = setTimeout(showPending, ANNOUNCE_INTERVAL_MS);
  };
  const announce = (sentence, isVisible = false) => {
    pending = [sentence, isVisible];
    if (!timer) showPending();
  };
  announce.addArrival = () => { arrivedCount += 1; announce(arrivedCount === 1 ? "1 new message" : `${arrivedCount} new messages`); };
  return announce;
}
