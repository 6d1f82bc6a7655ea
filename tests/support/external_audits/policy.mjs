// Judges a Content-Security-Policy (first argument) with csp_evaluator. Exit code 1 for a finding of high severity.
import { CspEvaluator } from "csp_evaluator/dist/evaluator.js";
import { CspParser } from "csp_evaluator/dist/parser.js";

const findings = new CspEvaluator(new CspParser(process.argv[2]).csp).evaluate();
for (const { severity, directive, description } of findings) console.log(severity, directive, description);
const high = findings.filter(({ severity }) => severity <= 20).length; // 10 high, 20 syntax error
console.log(`${findings.length} findings, ${high} high`);
process.exit(high ? 1 : 0);
