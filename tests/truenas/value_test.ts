import { assertEquals } from "@std/assert";
import { nameOf, numberOf, textOf, timeOf, userPropertiesOf } from "../../src/truenas/value.ts";

Deno.test("a number is read from each form that the array writes it in", () => {
  const forms = [
    { parsed: 16384, rawvalue: "16384", value: "16K", source: "DEFAULT", source_info: null },
    { raw: "16384", value: 16384, source: null },
    { value: 16384 },
    16384,
    "16384",
  ];
  assertEquals(forms.map(numberOf), [16384, 16384, 16384, 16384, 16384]);
});

Deno.test("what is absent, empty or no number is undefined, never zero", () => {
  const forms = [undefined, null, {}, { parsed: null, rawvalue: null, value: null }, "", "none"];
  assertEquals(forms.map(numberOf), forms.map(() => undefined));
  assertEquals(forms.slice(0, 4).map(textOf), [undefined, undefined, undefined, undefined]);
});

Deno.test("a zero that the array shows as nothing is still a zero", () => {
  assertEquals(numberOf({ parsed: null, rawvalue: "0", value: null }), 0);
});

Deno.test("a guid keeps all its digits", () => {
  const guid = { raw: "17446418386297156546", value: 17446418386297157000, source: null };
  assertEquals(textOf(guid), "17446418386297156546");
});

Deno.test("a time is milliseconds, from a date object and from seconds", () => {
  assertEquals(timeOf({ $date: 1795320303000 }), 1795320303000);
  assertEquals(timeOf({ raw: "1795320303", value: 1795320303, source: null }), 1795320303000);
  const parsed = { parsed: { $date: 1795320303000 }, rawvalue: "1795320303", value: "Sun Nov 22" };
  assertEquals(timeOf(parsed), 1795320303000);
  assertEquals(timeOf(undefined), undefined);
});

Deno.test("no origin is undefined in all its spellings", () => {
  const forms = ["", "none", "-", undefined, { parsed: "", rawvalue: "", value: "" }];
  assertEquals(forms.map(nameOf), forms.map(() => undefined));
  assertEquals(nameOf({ raw: "tank/a@b", value: "tank/a@b", source: null }), "tank/a@b");
});

Deno.test("user properties are plain text; those of TrueNAS itself are left out", () => {
  assertEquals(
    userPropertiesOf({
      comments: { parsed: "c", rawvalue: "c", value: "c", source: "LOCAL" },
      "tnblock:volume": "tank/pve/vm-1",
      "a:b": { parsed: "x", rawvalue: "x", value: "x", source: "INHERITED" },
    }),
    { "tnblock:volume": "tank/pve/vm-1", "a:b": "x" },
  );
  assertEquals(userPropertiesOf(null), {});
});
