// The page: adds streams, lays them side by side, and brings them back after a reload.

import { camera, screen } from "./capture.js";
import { Panel } from "./panel.js";
import { key, request } from "./server.js";

const SAVED = "svlm-streams";
const panels = new Set();
const main = document.getElementById("panels");
const get = (id) => document.getElementById(id);

function add(start, sessionId = null) {
  const panel = new Panel(start, { sessionId, changed: save, removed: (gone) => { panels.delete(gone); save(); } });
  panels.add(panel);
  get("empty").hidden = true;
  main.append(panel.element);
  return panel;
}

function save() {
  const streams = [...panels].map((panel) => panel.saved).filter((saved) => saved.id);
  localStorage.setItem(SAVED, JSON.stringify(streams));
  get("empty").hidden = panels.size > 0;
}

const play = (open) => async (video) => {
  video.srcObject = await open();
  await video.play();
};

const MEDIA = { Camera: play(camera), Screen: play(screen) };

get("add-camera").onclick = () => add({ name: "Camera", media: MEDIA.Camera });
get("add-screen").onclick = () => add({ name: "Screen", media: MEDIA.Screen });
get("add-match").onclick = () => {
  const seed = 1 + Math.floor(Math.random() * 9999);
  add({ name: `Match ${seed}`, address: `synthetic:match?seed=${seed}` });
};
get("add-file").onclick = () => get("file").click();
get("file").onchange = () => {
  const [file] = get("file").files;
  get("file").value = "";
  if (!file) return;
  add({ name: file.name, media: async (video) => { video.src = URL.createObjectURL(file); await video.play(); } });
};
get("add-address").onclick = () => get("address-dialog").showModal();
get("address-cancel").onclick = () => get("address-dialog").close("cancel");
get("address-dialog").onclose = () => {
  const address = get("address").value.trim();
  if (get("address-dialog").returnValue === "ok" && address) add({ name: address.replace(/\/\/[^@/]*@/, "//"), address });
};

async function begin() {
  try {
    const { data } = await (await request("/v1/models")).json();
    const { fps, width, height } = data[0].svlm;
    get("server").textContent = `${data[0].id}, ${fps} pictures a second of ${width} × ${height}`;
  } catch (error) {
    if (error.status === 401) return askKey();
    get("server").textContent = error.message;
    return setTimeout(begin, 2000);
  }
  for (const saved of JSON.parse(localStorage.getItem(SAVED) || "[]")) {
    add({ name: saved.name, remote: saved.remote, media: saved.remote ? undefined : MEDIA[saved.name] }, saved.id);
  }
}

function askKey() {
  get("key-dialog").onclose = () => { key.set(get("key").value); begin(); };
  get("key-dialog").showModal();
}

begin();
