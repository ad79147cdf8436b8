// Requests to /api/v1. A failure carries the message of the server's envelope. Once a page has begun, all it asks for is of one snapshot.

const BASE = "/api/v1";
const BUILDING_WAIT_MS = 2000;
const BUSY_TRIES = 5; // of a request that the server refused for load, before anything was done

let pinned = null;
let onNewer = () => {};
let onGone = () => {};
let connection = "open"; // or "lost": the server does not answer, or "ended": it does not know this session
let onConnection = () => {};

export class Failure extends Error {
  constructor(status, code, message, remedy) {
    super(message);
    Object.assign(this, { status, code, remedy });
  }
}

export function query(parameters) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of [value].flat()) {
      if (each !== null && each !== undefined && each !== "") search.append(name, each);
    }
  }
  const text = search.toString();
  return text ? `?${text}` : "";
}

/** From now on every request is of this snapshot. `newer(number)` hears of newer ones, `gone()` that this one is not served any more. */
export function pinSnapshot(number, { newer, gone }) {
  [pinned, onNewer, onGone] = [number, newer, gone];
}

/** `listener(connection)` is called with each change of it. */
export function watchConnection(listener) {
  onConnection = listener;
}

function connectionIs(now) {
  if (now === connection) return;
  connection = now;
  onConnection(now);
}

/** As `fetch`. Status 0 is that of a server that does not answer: what became of the request is unknown. */
export async function request(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connectionIs("lost");
    throw new Failure(0, "no_answer", "The server does not answer.", "");
  }
  if (answer.status !== 429) connectionIs(answer.status === 401 ? "ended" : "open"); // 429 is no word on the session
  return answer;
}

/** The address of a picture or a video, of the snapshot of the page. */
export function ofSnapshot(address) {
  return address + query({ snapshot: pinned });
}

/** As long as the server needs to look at the corpus again. */
export function pause() {
  return new Promise((resolve) => setTimeout(resolve, BUILDING_WAIT_MS));
}

/** While the server builds its first cache, `onBuilding` is called and the request is repeated. */
export async function get(path, parameters = {}, { signal, onBuilding } = {}) {
  const asked = query({ snapshot: pinned, ...parameters }); // what is not of a snapshot leaves it aside
  for (;;) {
    const answer = await request(BASE + path + asked, { signal, headers: { Accept: "application/json" } });
    if (answer.ok) {
      const body = await answer.json();
      if (pinned !== null && body.newest_snapshot > pinned) onNewer(body.newest_snapshot);
      return body;
    }
    const failure = await failureOf(answer);
    if (failure.code !== "building" || !onBuilding) throw failure;
    onBuilding(failure.message);
    await pause();
  }
}

/** What is not of a snapshot leaves that of the page aside. */
export async function post(path, body = {}) {
  const address = BASE + path + query({ snapshot: pinned });
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  for (let tries = 1; ; tries++) {
    const answer = await request(address, { method: "POST", headers, body: JSON.stringify(body) });
    if (answer.ok) return answer.json();
    const failure = await failureOf(answer);
    if (failure.code !== "busy" || tries === BUSY_TRIES) throw failure;
    await pause();
  }
}

/** A random id in the form of a UUID. `crypto.randomUUID` is not there for pages that came over HTTP from another machine. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export async function failureOf(answer) {
  let error = {};
  try {
    const body = await answer.json();
    error = body.error ?? body;
  } catch {
    // no JSON: the status is all there is
  }
  if (error.code === "snapshot_gone") onGone();
  return new Failure(answer.status, error.code ?? "http", error.message ?? `status ${answer.status}`, error.remedy ?? "");
}

/** The address of a stream of server-sent events. */
export function streamAddress(path) {
  return BASE + path;
}

export function episodePath(uid) {
  return `/episodes/${encodeURIComponent(uid)}`;
}

export function frameAddress(uid, camera, timestep) {
  return ofSnapshot(`${BASE}${episodePath(uid)}/frames/${timestep}/${encodeURIComponent(camera)}`);
}

export function sheetAddress(uid, camera) {
  return ofSnapshot(`${BASE}${episodePath(uid)}/sheets/${encodeURIComponent(camera)}`);
}
