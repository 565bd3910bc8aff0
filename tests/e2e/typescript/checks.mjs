// One line of JSON on standard output for each check: what was looked at, and the error if it failed.

import assert from "node:assert/strict";

const PATIENCE = 15_000; // milliseconds a check may take

export async function check(name, body) {
  let timer;
  const tooLong = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${PATIENCE} ms`)), PATIENCE);
  });
  try {
    await Promise.race([body(), tooLong]);
    console.log(JSON.stringify({ check: name }));
  } catch (error) {
    console.log(JSON.stringify({ check: name, error: String(error?.stack ?? error) }));
  } finally {
    clearTimeout(timer);
  }
}

// Repeat a cause until its effect is seen: a client opens its listening stream when it likes,
// says nothing of it, and what is sent before then is lost.
export async function provoke(cause, effect) {
  while (!effect()) {
    await cause();
    for (let waited = 0; waited < 500 && !effect(); waited += 10) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

export const text = (result) => {
  assert.ok(!result.isError, JSON.stringify(result));
  return result.content[0].text;
};

// What the client answers when a server asks, in either era.
export const capabilities = { elicitation: {}, sampling: {}, roots: {} };
export const answers = {
  "elicitation/create": async () => ({ action: "accept", content: { name: "Ada" } }),
  "sampling/createMessage": async () => ({
    role: "assistant",
    model: "small",
    content: { type: "text", text: "Paris" },
  }),
  "roots/list": async () => ({ roots: [{ uri: "file:///home/ada", name: "home" }] }),
};
