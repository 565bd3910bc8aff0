// What a client does with a server. `peer` hides how the two generations of the SDK differ:
//   peer.client   the SDK's client         peer.legacy   whether the era is
//   peer.call(name, arguments, options)    peer.received the notifications so far
//   peer.dropsProgress   it does so with progress that it reads together with the answer, whatever the server
//   peer.listen(filter)                    peer.end()    close, and end the session if there is one

import assert from "node:assert/strict";
import { check, provoke, text } from "./checks.mjs";

export async function run(server, peer) {
  await (server === "everything" ? meetEverything(peer) : meetOurs(peer));
  await check("end", () => peer.end());
}

async function meetOurs(peer) {
  const { client, call } = peer;
  const key = `typescript-${peer.name}`;
  const heard = (method) => peer.received.some((notification) => notification.method === method);

  await check("tools are listed", async () => {
    const names = (await client.listTools()).tools.map((tool) => tool.name);
    assert.ok(["echo", "add", "count"].every((name) => names.includes(name)), names.join());
  });
  await check("a tool is called", async () => {
    assert.equal(text(await call("echo", { message: "grüße ☃" })), "grüße ☃");
  });
  await check("structured content arrives", async () => {
    assert.deepEqual((await call("add", { a: 2, b: 3 })).structuredContent, { result: 5 });
  });
  await check("many calls at once get their own answers", async () => {
    const messages = Array.from({ length: 30 }, (_, number) => `message ${number}`);
    assert.deepEqual(await Promise.all(messages.map(async (m) => text(await call("echo", { message: m })))), messages);
  });
  await check("an error stays one", () => assert.rejects(client.readResource({ uri: "memo://no/such/thing" })));
  await check("resources are listed and read", async () => {
    assert.equal((await client.listResources()).resources[0].uri, "memo://today");
    assert.equal((await client.readResource({ uri: "memo://monday/items" })).contents[0].text, "items of monday");
  });
  await check("a prompt is got", async () => {
    const prompt = await client.getPrompt({ name: "summarize", arguments: { topic: "trees" } });
    assert.equal(prompt.messages[0].content.text, "Please summarize trees");
  });
  await check("an argument is completed", async () => {
    const ref = { type: "ref/prompt", name: "summarize" };
    const { completion } = await client.complete({ ref, argument: { name: "topic", value: "t" } });
    assert.deepEqual(completion.values, ["tea", "trees"]);
  });
  await check("progress arrives in order", async () => {
    const seen = [];
    await call("count", { steps: 3 }, { onprogress: ({ progress }) => seen.push(progress) });
    assertProgress(peer, seen);
  });
  await check("the server asks the user", async () => assert.equal(text(await call("greet", {})), "Hello, Ada!"));
  await check("the server asks the model", async () => assert.equal(text(await call("think", {})), "small: Paris"));
  await check("the server asks for roots", async () => assert.equal(text(await call("look", {})), "file:///home/ada"));
  await check("a call is cancelled", async () => {
    const giveUp = new AbortController();
    const options = { signal: giveUp.signal, onprogress: () => giveUp.abort() };
    await assert.rejects(call("hold", { key }, options));
  });
  await check("list_changed is heard", async () => {
    const listening = await peer.listen({ toolsListChanged: true });
    await provoke(
      () => call("grow", { name: "twig" }),
      () => heard("notifications/tools/list_changed"),
    );
    await listening.close();
  });
  await check("a change of a resource is heard", async () => {
    const uri = "memo://today";
    if (peer.legacy) await client.subscribeResource({ uri });
    const listening = await peer.listen({ resourceSubscriptions: [uri] });
    await provoke(
      () => call("touch", { uri }),
      () => heard("notifications/resources/updated"),
    );
    await listening.close();
  });
  if (peer.legacy) {
    await check("a log message is heard", async () => {
      await client.setLoggingLevel("info");
      await call("complain", { message: "no tea" });
      await provoke(async () => {}, () => heard("notifications/message"));
    });
    await check("ping is answered", () => client.ping());
  }
}

// @modelcontextprotocol/server-everything speaks the legacy era alone.
async function meetEverything(peer) {
  const { client, call } = peer;

  await check("the era is legacy", async () => assert.ok(peer.legacy));
  await check("tools are listed", async () => {
    const names = (await client.listTools()).tools.map((tool) => tool.name);
    assert.ok(["echo", "get-sum", "trigger-sampling-request"].every((name) => names.includes(name)), names.join());
  });
  await check("a tool is called", async () => {
    assert.equal(text(await call("echo", { message: "grüße ☃" })), "Echo: grüße ☃");
    assert.match(text(await call("get-sum", { a: 2, b: 3 })), /is 5/);
  });
  await check("structured content arrives", async () => {
    const { structuredContent } = await call("get-structured-content", { location: "Chicago" });
    assert.equal(structuredContent.humidity, 82);
  });
  await check("resources are listed and read", async () => {
    const [first] = (await client.listResources()).resources;
    assert.equal((await client.readResource({ uri: first.uri })).contents[0].uri, first.uri);
  });
  await check("a prompt's argument is completed, and the prompt got", async () => {
    const ref = { type: "ref/prompt", name: "completable-prompt" };
    const { completion } = await client.complete({ ref, argument: { name: "department", value: "S" } });
    assert.deepEqual(completion.values, ["Sales", "Support"]);
    const chosen = { department: "Sales", name: "Eve" };
    const { messages } = await client.getPrompt({ name: "completable-prompt", arguments: chosen });
    assert.match(messages[0].content.text, /promote Eve/);
  });
  await check("progress arrives in order", async () => {
    const seen = [];
    const onprogress = ({ progress }) => seen.push(progress);
    await call("trigger-long-running-operation", { duration: 0.3, steps: 3 }, { onprogress });
    assertProgress(peer, seen);
  });
  await check("the server asks the user", async () => {
    assert.match(JSON.stringify(await call("trigger-elicitation-request", {})), /Ada/);
  });
  await check("the server asks the model", async () => {
    assert.match(text(await call("trigger-sampling-request", { prompt: "capital?" })), /Paris/);
  });
  await check("the server asks for roots, on the listening stream", async () => {
    assert.match(text(await call("get-roots-list", {})), /file:\/\/\/home\/ada/);
  });
  await check("a log message is heard, on the listening stream", async () => {
    await provoke(
      () => client.subscribeResource({ uri: "demo://resource/dynamic/text/1" }),
      () => peer.received.some(({ params }) => /Received Subscribe/.test(params?.data ?? "")),
    );
  });
}

// In order, and nothing else; all of it where the SDK gives it to us.
function assertProgress(peer, seen) {
  const all = [1, 2, 3];
  assert.deepEqual(seen, peer.dropsProgress ? all.filter((step) => seen.includes(step)) : all);
}
