// Reads lines of {"case": …} and answers each with {"iam-simulate": …}. Run by compare.py with the package installed elsewhere:
// its licence (AGPL-3.0) keeps it out of this repository, so it is asked as a process of its own.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const { runUnsafeSimulation, anonymousPrincipal } = createRequire(`${process.argv[2]}/`)("@cloud-copilot/iam-simulate");

function principal(caller) {
  const other = caller.startsWith("other:");
  const account = other ? "444455556666" : "111122223333";
  const [kind, name] = caller.replace("other:", "").split(/:(.*)/s);
  if (kind === "root") return [`arn:aws:iam::${account}:root`, account];
  if (kind === "user") return [`arn:aws:iam::${account}:user/${name}`, account];
  if (kind === "session") return [`arn:aws:sts::${account}:assumed-role/${name}`, account];
  if (kind === "anonymous") return [anonymousPrincipal, null];
  return [name, null];
}

function answer(question) {
  const [who, account] = principal(question.caller);
  if ((question.session ?? []).length > 1 || question.gateway) return "not supported";
  const context = {};
  for (const [key, values] of Object.entries(question.context)) {
    if (values.length > 0) context[key] = values.length > 1 || /TagKeys|InstanceTypes/.test(key) ? values : values[0];
  }
  const named = (policies) => policies.map((policy, at) => ({ name: `p${at}`, policy }));
  const result = runUnsafeSimulation(
    {
      request: {
        principal: who,
        action: question.action,
        resource: { resource: question.resource, accountId: question.owner ?? account ?? "111122223333" },
        contextVariables: context,
      },
      identityPolicies: named(question.identity),
      serviceControlPolicies: question.organization.map((level, at) => ({ orgIdentifier: `o${at}`, policies: named(level) })),
      resourceControlPolicies: [],
      ...(question.session ? { sessionPolicy: question.session[0] } : {}),
      ...(question.resource_policy ? { resourcePolicy: question.resource_policy } : {}),
      ...(question.boundary ? { permissionBoundaryPolicies: named([question.boundary]) } : {}),
      ...(question.endpoint ? { vpcEndpointPolicies: named([question.endpoint]) } : {}),
    },
    {},
  );
  return result === "Allowed" ? "allow" : "deny";
}

for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    said = answer(JSON.parse(line).case);
  } catch (error) {
    said = "refused";
  }
  console.log(JSON.stringify({ "iam-simulate": said }));
}
