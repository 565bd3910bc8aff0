// node resumer.mjs URL: a client that does what each line of standard input says, and
// prints a line for each answer and each notification.
//
//   {"do": "call", "name": …, "arguments": …, "token": …, "timeout": milliseconds}
//   {"do": "read", "uri": …}   {"do": "subscribe", "uri": …}   {"do": "level", "level": …}

import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const print = (value) => console.log(JSON.stringify(value));
const client = new Client({ name: "resumer", version: "1" });
client.fallbackNotificationHandler = async ({ method, params }) => print({ heard: method, params });
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
client.onerror = (error) => print({ trouble: String(error) });

const commands = {
  call: async ({ name, arguments: args, token, timeout }) => {
    const onprogress = (params) => print({ heard: "notifications/progress", params });
    const onresumptiontoken = (newest) => print({ token: newest });
    const options = { onprogress, onresumptiontoken, resumptionToken: token, timeout };
    return (await client.callTool({ name, arguments: args }, undefined, options)).content[0].text;
  },
  read: ({ uri }) => client.readResource({ uri }),
  level: ({ level }) => client.setLoggingLevel(level),
  subscribe: ({ uri }) => client.subscribeResource({ uri }),
};

await client.connect(transport);
print({ answer: "connected" });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command).then(
    (answer) => print({ answer }),
    (error) => print({ error: String(error) }),
  );
}
await transport.terminateSession();
await client.close();
