// Requests to /api/v1. A failure carries the message of the server's envelope.

const BASE = "/api/v1";
const BUILDING_WAIT_MS = 2000;

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

/** While the server builds its first cache, `onBuilding` is called and the request is repeated. */
export async function get(path, parameters = {}, { signal, onBuilding } = {}) {
  for (;;) {
    const answer = await fetch(BASE + path + query(parameters), { signal, headers: { Accept: "application/json" } });
    if (answer.ok) return answer.json();
    const failure = await failureOf(answer);
    if (failure.code !== "building" || !onBuilding) throw failure;
    onBuilding(failure.message);
    await new Promise((resolve) => setTimeout(resolve, BUILDING_WAIT_MS));
  }
}

async function failureOf(answer) {
  let error = {};
  try {
    const body = await answer.json();
    error = body.error ?? body;
  } catch {
    // no JSON: the status is all there is
  }
  return new Failure(answer.status, error.code ?? "http", error.message ?? `status ${answer.status}`, error.remedy ?? "");
}

export function episodePath(uid) {
  return `/episodes/${encodeURIComponent(uid)}`;
}

export function sheetAddress(uid, camera) {
  return `${BASE}${episodePath(uid)}/sheets/${encodeURIComponent(camera)}`;
}
