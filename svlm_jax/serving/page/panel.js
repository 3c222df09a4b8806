// One stream on the page: its picture with captions over it, transcript, questions, settings, meters and cache.

import { CacheFigure } from "./cache.js";
import { Capture } from "./capture.js";
import { Connection, request } from "./server.js";

const LINES = 2000; // of the transcript on the page; the server keeps an hour

export const clock = (seconds) => {
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return `${h ? `${h}:${String(m).padStart(2, "0")}` : m}:${String(s).padStart(2, "0")}`;
};

let number = 0;

export class Panel {
  /** start: {name, address} or, after a reload, {name, remote} for the server's sources; {name, media()} for the browser's; sessionId of a stream that goes on. */
  constructor(start, { sessionId = null, changed, removed }) {
    this.start = start;
    this.changed = changed;
    this.removed = removed;
    this.element = document.getElementById("panel").content.cloneNode(true).firstElementChild;
    this.find = (selector) => this.element.querySelector(selector);
    this.find(".name").textContent = start.name;
    const id = `ask-${(number += 1)}`;
    this.find(".ask label").htmlFor = id;
    this.find(".ask input").id = id;
    this.cache = new CacheFigure(this.find(".cache"));
    this.video = this.find("video");
    this.decoding = new Map(); // response id -> {kind, text, began}
    this.remote = Boolean(start.address || start.remote);
    this.attached = sessionId !== null;
    this.connection = new Connection(this.handlers(), sessionId);
    this.listen();
    this.say("connecting…");
  }

  get saved() {
    // The address stays with the server: it may hold a password, and a stream that goes on still has its source.
    return { id: this.connection.sessionId, name: this.start.name, remote: this.remote };
  }

  handlers() {
    return {
      "session.created": (event) => this.created(event.session),
      "session.updated": (event) => {
        this.settings(event.session);
        this.find(".apply").textContent = "Applied";
      },
      "svlm.frame_ack": (event) => this.number(".dropped", event.svlm.dropped, event.svlm.dropped > 0),
      "svlm.status": (event) => this.say(event.svlm.message, !event.svlm.ended && false),
      "svlm.closed": (event) => this.say(`closed: ${event.svlm.reason}`, true),
      "response.created": (event) => this.begun(event.response),
      "response.output_text.delta": (event) => this.words(event),
      "response.done": (event) => this.done(event.response),
      error: (event) => this.say(event.error.message, true),
      lost: () => this.say("connection lost, trying again…", true),
    };
  }

  listen() {
    this.find(".close").onclick = () => this.close();
    this.find(".pause").onclick = () => this.pause();
    this.find(".ask").onsubmit = (event) => {
      event.preventDefault();
      this.ask(this.find(".ask input").value.trim());
      this.find(".ask input").value = "";
    };
    this.find(".apply").onclick = () => this.apply();
    this.find(".settings").oninput = () => (this.find(".apply").textContent = "Apply");
    for (const button of this.element.querySelectorAll("[data-format]")) button.onclick = () => this.download(button.dataset.format);
  }

  say(text, bad = false) {
    const state = this.find(".state");
    state.textContent = text;
    state.title = text;
    state.classList.toggle("bad", bad);
  }

  number(selector, text, bad = false) {
    const field = this.find(selector);
    field.textContent = text;
    field.classList.toggle("bad", bad);
  }

  // ------------------------------------------------------------------ the stream

  async created(session) {
    this.about = session.svlm;
    this.settings(session);
    const back = session.svlm.resumed;
    this.say(back ? `resumed at ${clock(back.position)}, ${back.lost_seconds.toFixed(0)} s lost` : "waiting for video…");
    if (back && !this.listed) await this.list();
    this.changed();
    if (this.start.address && !this.attached) {
      this.attached = true;
      this.connection.send({ type: "svlm.source", source: this.start.address });
    } else if (this.start.media && !this.capture) {
      try {
        await this.start.media(this.video);
        this.capture = new Capture(this.video, this.about, (blob, time) => this.connection.sendPicture(blob, time));
      } catch (error) {
        this.say(`no picture: ${error.message}`, true);
      }
    }
  }

  /** What the stream said before this page was loaded. */
  async list() {
    this.listed = true;
    const response = await request(`/v1/streams/${this.connection.sessionId}/captions?format=json`).catch(() => null);
    for (const caption of (await response?.json()) || []) this.line(caption);
  }

  begun(response) {
    this.decoding.set(response.id, { kind: response.svlm.kind, text: "" });
    if (response.svlm.kind === "answer") this.pending = this.row("answer", null, "…");
  }

  words(event) {
    const reply = this.decoding.get(event.response_id);
    if (!reply) return;
    reply.text += event.delta;
    if (reply.kind === "caption") this.find(".overlay").textContent = reply.text;
    else if (this.pending) this.pending.lastChild.textContent = reply.text;
  }

  done(response) {
    this.decoding.delete(response.id);
    const text = response.output[0]?.content[0]?.text || "";
    const about = response.svlm;
    if (about.kind === "answer") this.answered(text, about);
    else this.captioned(text, about);
  }

  captioned(text, about) {
    this.find(".overlay").textContent = text;
    this.line({ ...about, text });
    this.say(`${clock(about.end)} seen`);
    this.number(".lag", `${Math.round(about.lag * 1000)} ms`, about.missed);
    this.number(".first", about.first_word_ms === null ? "–" : `${Math.round(about.first_word_ms)} ms`);
    this.number(".speed", about.tokens_per_s === null ? "–" : about.tokens_per_s.toFixed(0));
    this.number(".misses", about.misses, about.misses > 0);
    this.number(".dropped", about.dropped, about.dropped > 0);
    this.cache.add(about.usage);
    if (this.remote) this.preview(about.start);
  }

  async preview(second) {
    const image = this.find(".preview");
    if (this.fetching) return;
    this.fetching = true;
    await this.picture(second).then((url) => {
      image.hidden = false;
      URL.revokeObjectURL(image.src);
      image.src = url;
    }).catch(() => {});
    this.fetching = false;
  }

  /** The picture of a second that the server still has, as an address for an <img>. */
  async picture(second) {
    const response = await request(`/v1/streams/${this.connection.sessionId}/thumbnail?second=${second}`);
    return URL.createObjectURL(await response.blob());
  }

  // ------------------------------------------------------------------ the transcript

  line(caption) {
    if (caption.text) this.row("caption", caption.start, caption.text);
  }

  row(kind, second, text) {
    const list = this.find(".transcript");
    const low = list.scrollTop + list.clientHeight >= list.scrollHeight - 30;
    const row = document.createElement("li");
    row.className = kind;
    if (second !== null) {
      const time = document.createElement("button");
      time.type = "button";
      time.className = "time";
      time.textContent = clock(second);
      time.title = "Show that moment";
      time.onclick = () => this.show(row, second);
      row.append(time);
    }
    const words = document.createElement("span");
    words.textContent = text;
    row.append(words);
    list.append(row);
    while (list.children.length > LINES) list.firstChild.remove();
    if (low) list.scrollTop = list.scrollHeight;
    return row;
  }

  async show(row, second) {
    if (this.video.src && Number.isFinite(this.video.duration)) {
      this.video.currentTime = second;
      return;
    }
    const shown = row.querySelector("img");
    if (shown) return shown.remove();
    const image = document.createElement("img");
    image.alt = `The picture at ${clock(second)}`;
    image.height = 60;
    image.src = await this.picture(second).catch(() => "");
    if (image.src) row.append(image);
    else this.say(`the picture of ${clock(second)} is not kept any more`, true);
  }

  // ------------------------------------------------------------------ questions

  ask(text) {
    if (!text) return;
    this.row("question", null, text);
    const content = [{ type: "input_text", text }];
    this.connection.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.connection.send({ type: "response.create", response: {} });
  }

  async answered(text, about) {
    const row = this.pending || this.row("answer", null, "");
    this.pending = null;
    row.lastChild.textContent = text || "(no answer)";
    const evidence = document.createElement("div");
    evidence.className = "evidence";
    row.append(evidence);
    for (const second of about.evidence || []) {
      const url = await this.picture(second).catch(() => null);
      if (!url) continue;
      const figure = document.createElement("figure");
      const image = document.createElement("img");
      image.src = url;
      image.alt = "";
      const label = document.createElement("figcaption");
      label.textContent = clock(second);
      figure.append(image, label);
      evidence.append(figure);
    }
    const list = this.find(".transcript");
    list.scrollTop = list.scrollHeight;
  }

  // ------------------------------------------------------------------ settings

  settings(session) {
    const { svlm } = session;
    this.find(".instructions").value = session.instructions;
    this.find(".query").value = svlm.query || "";
    this.find(".vision").value = svlm.window.vision;
    this.find(".text").value = svlm.window.text;
    this.find(".temperature").value = svlm.temperature;
    this.find(".pause").setAttribute("aria-pressed", svlm.paused);
    this.find(".pause").textContent = svlm.paused ? "Go on" : "Pause";
  }

  apply() {
    const value = (selector) => Number(this.find(selector).value);
    this.connection.send({
      type: "session.update",
      session: {
        type: "realtime",
        instructions: this.find(".instructions").value,
        svlm: {
          query: this.find(".query").value || null,
          window: { vision: value(".vision"), text: value(".text") },
          temperature: value(".temperature"),
        },
      },
    });
  }

  pause() {
    const paused = this.find(".pause").getAttribute("aria-pressed") !== "true";
    this.connection.send({ type: "session.update", session: { type: "realtime", svlm: { paused } } });
  }

  async download(format) {
    const response = await request(`/v1/streams/${this.connection.sessionId}/captions?format=${format}`).catch((error) => this.say(error.message, true));
    if (!response) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `captions.${format}`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  close() {
    this.capture?.stop();
    this.connection.close();
    request(`/v1/streams/${this.connection.sessionId}`, { method: "DELETE" }).catch(() => {});
    this.element.remove();
    this.removed(this);
  }
}
