// The server as the page sees it: its key, its HTTP routes, and one WebSocket a stream in the Realtime API's events.

const KEY = "svlm-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** A GET or POST with the key; throws an Error with the server's sentence and its status. */
export async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  const response = await fetch(path, { ...options, headers });
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw Object.assign(new Error(body?.error?.message || response.statusText), { status: response.status });
  }
  return response;
}

/** A stream's connection. It comes back by itself, with the session id, for as long as it is not closed here. */
export class Connection {
  constructor(handlers, sessionId = null) {
    this.handlers = handlers;
    this.sessionId = sessionId;
    this.closed = false;
    this.wait = 500; // ms before the next try
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const query = this.sessionId ? `?session_id=${encodeURIComponent(this.sessionId)}` : "";
    const names = ["realtime"];
    if (key.get()) names.push(`openai-insecure-api-key.${key.get()}`);
    this.socket = new WebSocket(`${scheme}//${location.host}/v1/realtime${query}`, names);
    this.socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    this.socket.onclose = () => this.again();
  }

  receive(event) {
    if (event.type === "session.created") {
      this.sessionId = event.session.id;
      this.wait = 500;
    }
    if (event.type === "error" && event.error.code === "not_found") this.sessionId = null; // nothing of it is left: begin anew
    if (event.type === "error" && event.error.code === "session_capacity_exceeded") this.wait = 5000;
    this.handlers[event.type]?.(event);
  }

  again() {
    if (this.closed) return;
    this.handlers.lost?.();
    setTimeout(() => this.closed || this.open(), this.wait);
    this.wait = Math.min(this.wait * 2, 10000);
  }

  get ready() {
    return this.socket.readyState === WebSocket.OPEN && this.sessionId !== null;
  }

  send(event) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  /** One picture (a Blob of JPEG) of the moment `time`, in seconds. Left out while the network is behind. */
  sendPicture(blob, time) {
    if (!this.ready || this.socket.bufferedAmount > 2_000_000) return false;
    this.socket.send(JSON.stringify({ type: "svlm.frame", time }));
    this.socket.send(blob);
    return true;
  }

  close() {
    this.closed = true;
    this.socket.close();
  }
}
