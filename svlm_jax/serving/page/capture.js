// Pictures of a camera, a screen or a file in this browser, as JPEG at the rate and size that the model sees.

export async function camera() {
  return navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } }, audio: false });
}

export async function screen() {
  return navigator.mediaDevices.getDisplayMedia({ video: true, audio: false });
}

/** Sends pictures of a <video> through `send(blob, seconds)` until stopped. about: fps, width and height of the model. */
export class Capture {
  constructor(video, about, send) {
    this.video = video;
    this.send = send;
    this.canvas = document.createElement("canvas");
    this.canvas.width = about.width;
    this.canvas.height = about.height;
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.begin = performance.now();
    this.timer = setInterval(() => this.take(), 1000 / about.fps);
  }

  take() {
    const { video, canvas } = this;
    if (video.readyState < 2 || this.busy || (video.paused && !video.srcObject)) return;
    this.busy = true;
    this.context.drawImage(video, 0, 0, canvas.width, canvas.height);
    const seconds = (performance.now() - this.begin) / 1000;
    canvas.toBlob((blob) => {
      this.busy = false;
      if (blob) this.send(blob, seconds);
    }, "image/jpeg", 0.9);
  }

  stop() {
    clearInterval(this.timer);
    this.video.srcObject?.getTracks().forEach((track) => track.stop());
    this.video.srcObject = null;
    if (this.video.src) URL.revokeObjectURL(this.video.src);
  }
}
