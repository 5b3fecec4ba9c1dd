import { assertEquals, assertStringIncludes } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { failureLine, parseRequest } from "../../src/pve/request.ts";

Deno.test("a request that is not JSON is answered with id null", () => {
  const { id, error } = parseRequest("{nonsense");
  assertEquals(id, null);
  assertEquals(error?.code, "invalid");
});

Deno.test("a request with a readable id but no method is answered under that id", () => {
  const { id, error } = parseRequest('{"protocol":1,"id":"7f3a"}');
  assertEquals(id, "7f3a");
  assertStringIncludes(error?.message ?? "", "method");
});

Deno.test("an id that is neither text nor number counts as unreadable", () => {
  assertEquals(parseRequest('{"id":{"a":1}}').id, null);
});

Deno.test("the protocol before this one is understood, the next is not", () => {
  const line = (protocol: number) => `{"protocol":${protocol},"id":"1","method":"status"}`;
  assertEquals(parseRequest(line(0)).request?.method, "status");
  assertEquals(parseRequest(line(2)).error?.field, "protocol");
});

Deno.test("a failure says code, message and hint, and nothing of its cause", () => {
  const error = new TnblockError("auth", "Cannot log in", {
    hint: "Make a key",
    cause: new Error("1-secret"),
  });
  const line = failureLine("a", error);
  assertEquals(JSON.parse(line), {
    id: "a",
    ok: false,
    error: { code: "auth", message: "Cannot log in", hint: "Make a key" },
  });
});

Deno.test("numbers may come as texts, and what Perl left undefined as null", () => {
  const { request } = parseRequest(
    '{"protocol":"1","id":7,"method":"status","storage":"san","deadlineMs":"2000","pveApi":"13","node":null,"args":null}',
  );
  assertEquals([request?.protocol, request?.deadlineMs, request?.pveApi], [1, 2000, 13]);
  assertEquals(request?.args, {});
});
