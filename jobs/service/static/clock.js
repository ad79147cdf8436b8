// One clock for all videos of an episode. The first video that plays is the master; another that is more than a frame away is set to it.

const SPEEDS = [0.25, 0.5, 1, 2];

export class Clock {
  /** `rate` timesteps a second, `length` of them. `onTime(seconds)` is called for every frame shown. */
  constructor(rate, length, onTime) {
    Object.assign(this, { rate, length, onTime, videos: [], isPlaying: false, speed: 1, time: 0 });
  }

  get duration() {
    return this.length / this.rate;
  }

  get timestep() {
    return Math.min(Math.max(Math.floor(this.time * this.rate + 1e-6), 0), this.length - 1);
  }

  add(video) {
    this.videos.push(video);
    video.addEventListener("ended", () => video === this.master && this.pause());
    video.addEventListener("loadedmetadata", () => this.seekVideo(video));
    video.requestVideoFrameCallback((_, frame) => this.framePresented(video, frame));
  }

  remove(video) {
    this.videos = this.videos.filter((each) => each !== video);
  }

  get master() {
    return this.videos[0];
  }

  framePresented(video, { mediaTime }) {
    if (this.isPlaying && video === this.master) {
      this.show(mediaTime);
      for (const other of this.videos) this.follow(other, mediaTime);
    }
    video.requestVideoFrameCallback((_, frame) => this.framePresented(video, frame));
  }

  follow(video, time) {
    if (video === this.master || video.seeking || video.readyState < 2) return;
    if (Math.abs(video.currentTime - this.master.currentTime) > 1 / this.rate) video.currentTime = this.master.currentTime;
    if (video.paused && !video.ended) video.play().catch(() => {});
  }

  show(time) {
    this.time = Math.min(Math.max(time, 0), (this.length - 0.5) / this.rate);
    this.onTime(this.time);
  }

  /** The middle of a frame: rounding of times of frames does not matter there. */
  seek(timestep) {
    const place = Math.min(Math.max(timestep, 0), this.length - 1);
    this.show((place + 0.5) / this.rate);
    this.videos.forEach((video) => this.seekVideo(video));
  }

  seekVideo(video) {
    if (video.readyState >= 1) video.currentTime = this.time;
  }

  step(count) {
    this.pause();
    this.seek(this.timestep + count);
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (this.timestep >= this.length - 1) this.seek(0);
    this.isPlaying = true;
    this.videos.forEach((video) => {
      video.playbackRate = this.speed;
      video.play().catch(() => {}); // refused or interrupted: it is set again at the next frame of the master
    });
    if (!this.master) this.runWithoutVideo();
    this.onTime(this.time);
  }

  /** No video: the plots still run. */
  runWithoutVideo() {
    let last = performance.now();
    const advance = (now) => {
      if (!this.isPlaying) return;
      this.show(this.time + ((now - last) / 1000) * this.speed);
      last = now;
      if (this.timestep >= this.length - 1) this.pause();
      else requestAnimationFrame(advance);
    };
    requestAnimationFrame(advance);
  }

  pause() {
    this.isPlaying = false;
    this.videos.forEach((video) => video.pause());
    this.seek(this.timestep);
  }

  faster() {
    this.speed = SPEEDS[(SPEEDS.indexOf(this.speed) + 1) % SPEEDS.length];
    this.videos.forEach((video) => (video.playbackRate = this.speed));
  }
}
