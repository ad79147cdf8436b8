// Follows one job: its log and its states, by server-sent events, or by asking again where no stream can be had.

import { get, streamAddress } from "/static/api.js";

export const FINISHED = ["succeeded", "failed", "cancelled", "interrupted"];
const POLL_MS = 2000;

export class JobFollower {
  /** `onLog(text)` is called with whole lines, `onState(job)` with each state, `onProblem(message)` when the server cannot be reached. */
  constructor(id, { onLog, onState, onProblem }) {
    Object.assign(this, { id, onLog, onState, onProblem, after: 0, isClosed: false });
    this.stream = new EventSource(streamAddress(`/jobs/${id}/events`));
    this.stream.addEventListener("log", (event) => this.read(event));
    this.stream.addEventListener("state", (event) => this.see(JSON.parse(event.data)));
    this.stream.addEventListener("error", () => this.failed());
  }

  read(event) {
    this.after = Number(event.lastEventId);
    this.onLog(JSON.parse(event.data).text);
  }

  see(job) {
    // the browser would open the stream again, and read the end again, for as long as the page is open
    if (FINISHED.includes(job.state)) this.close();
    this.onState(job);
  }

  /** A stream that broke is opened again by the browser, from the last event on. One that was refused is not. */
  failed() {
    if (this.isClosed || this.stream.readyState !== EventSource.CLOSED) return;
    this.poll();
  }

  async poll() {
    try {
      // the state first: a log that is read after the end is whole
      const job = await get(`/jobs/${this.id}`);
      await this.readRest();
      if (this.isClosed) return;
      this.see(job);
    } catch (error) {
      if (this.isClosed) return;
      this.onProblem(error.message);
      if (error.status === 401) return; // each further request counts as an attempt to guess a token
    }
    if (!this.isClosed) this.timer = setTimeout(() => this.poll(), POLL_MS);
  }

  async readRest() {
    for (;;) {
      const { text, after } = await get(`/jobs/${this.id}/log`, { after: this.after });
      if (this.isClosed || !text) return;
      this.after = after;
      this.onLog(text);
    }
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.stream.close();
  }
}
