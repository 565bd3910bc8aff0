import trio
from mcp import Client


async def main():
    async with Client("http://127.0.0.1:8080/mcp") as client:
        result = await client.call_tool("add", {"a": 2, "b": 3})
        print(result.structured_content)


trio.run(main)
