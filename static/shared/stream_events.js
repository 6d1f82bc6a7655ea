// The names of the stream's events, as the server has them (`EventType` and `UnloggedEvent`; a test compares the lists). The
// application's pages and embed.js share this file, so it contains only the class.
"use strict";

class StreamEvents {
  static LOGGED = ["MESSAGE", "MESSAGE_UPDATED", "MESSAGE_REMOVED"]; // in the order of the log: each moves the cursor to its id
  static UNLOGGED = ["CONNECTED", "READ_RECEIPT", "HEARTBEAT", "RESET", "BUSY", "CONNECTION_LIMIT_REACHED", "SERVER_SHUTDOWN", "SIGNED_OUT"];
}
