import { assertEquals } from "@std/assert";
import { countReport } from "../../scripts/run_tests.ts";

Deno.test("a report is counted by what stands inside each case", () => {
  const xml = `<testsuites><testsuite name="a">
    <testcase name="one" classname="a" time="0.1" line="1" col="1"></testcase>
    <testcase name="two" classname="a" time="0.1"><failure message="x">y</failure></testcase>
    <testcase name="no &quot;perl&quot;" classname="a"><skipped/></testcase>
    <testcase name="four" time="0"/>
  </testsuite></testsuites>`;
  assertEquals(countReport(xml), { passed: 2, failed: 1, skipped: ['no "perl"'] });
});
