package issuers

import (
	"strings"

	"github.com/sillar-go/sillar/authn"
)

// Auth0 accepts access tokens of an API of Auth0. domain is the tenant, such as "shop.eu.auth0.com", or a custom
// domain; audience is the identifier of the API. Roles are the permissions of the user, which the API must add to its
// tokens ("Add Permissions in the Access Token").
func Auth0(domain, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{
		Issuer:     "https://" + strings.Trim(domain, "/") + "/",
		Audience:   []string{audience},
		RolesClaim: "permissions",
	}
}

// Okta accepts access tokens of a custom authorization server of Okta. issuer is its URL, such as
// "https://shop.okta.com/oauth2/default". Roles are the groups of the user, which the server must add to its tokens as
// the claim groups.
func Okta(issuer, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{
		Issuer:     issuer,
		Audience:   []string{audience},
		Types:      []string{"at+jwt", "JWT", "", "okta-internal-at+jwt"},
		RolesClaim: "groups",
	}
}

// Keycloak accepts access tokens of a realm of Keycloak. realmURL is its issuer: "https://host/realms/shop", and
// "https://host/auth/realms/shop" before version 17. Keycloak names an audience only when a mapper of the client or a
// client scope adds it. Roles are those of the realm; "resource_access.CLIENT.roles" as RolesClaim reads those of a
// client.
func Keycloak(realmURL, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{
		Issuer:     realmURL,
		Audience:   []string{audience},
		RolesClaim: "realm_access.roles",
	}
}

// EntraV1 accepts access tokens of Microsoft Entra ID in format 1, which an API gets unless its manifest asks for 2.
// The audience is the Application ID URI, such as "api://orders". Roles are the application roles.
func EntraV1(tenantID, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{Issuer: "https://sts.windows.net/" + tenantID + "/", Audience: []string{audience}}
}

// EntraV2 accepts access tokens of Microsoft Entra ID in format 2 ("requestedAccessTokenVersion": 2). The audience is
// the client id of the API. Roles are the application roles.
func EntraV2(tenantID, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{
		Issuer:   "https://login.microsoftonline.com/" + tenantID + "/v2.0",
		Audience: []string{audience},
	}
}

// Cognito accepts access tokens of a user pool of Amazon Cognito that were issued to one of the clients: these tokens
// name no audience. Roles are the groups of the user.
func Cognito(region, userPoolID string, clientIDs ...string) authn.VerifierConfig {
	cfg := authn.VerifierConfig{
		Issuer:        "https://cognito-idp." + region + ".amazonaws.com/" + userPoolID,
		Audience:      clientIDs,
		AudienceClaim: "client_id",
		Types:         []string{"JWT", ""},
		RolesClaim:    "cognito:groups",
	}
	return requireAudience(cfg)
}

// Google accepts Google's ID tokens for an OAuth client. Google's access tokens are opaque. The tokens carry no roles.
func Google(clientID string) authn.VerifierConfig {
	return authn.VerifierConfig{Issuer: "https://accounts.google.com", Audience: []string{clientID}, IDTokens: true}
}

// Firebase accepts the ID tokens of Firebase Authentication, which are what its clients send to services. Roles are the
// custom claim roles.
func Firebase(projectID string) authn.VerifierConfig {
	return authn.VerifierConfig{
		Issuer:   "https://securetoken.google.com/" + projectID,
		Audience: []string{projectID},
		IDTokens: true,
	}
}

// Supabase accepts access tokens of Supabase Auth for signed-in users. projectURL is "https://PROJECT.supabase.co". The
// role is the one of PostgREST, "authenticated"; "app_metadata.roles" as RolesClaim reads an application's own.
// Projects with a legacy JWT secret verify with authn.NewSecretKeySet.
func Supabase(projectURL string) authn.VerifierConfig {
	return authn.VerifierConfig{
		Issuer:     strings.TrimSuffix(projectURL, "/") + "/auth/v1",
		Audience:   []string{"authenticated"},
		RolesClaim: "role",
	}
}

// IdentityServer accepts access tokens of Duende IdentityServer, and of IdentityServer 4. Roles are the claim role, one
// string or several, which the API resource must ask for.
func IdentityServer(issuer, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{Issuer: issuer, Audience: []string{audience}, RolesClaim: "role"}
}

// Ory accepts access tokens of Ory Hydra or Ory Network with the strategy jwt. Roles are ext.roles, which the consent
// application sets in the session of the access token.
func Ory(issuer, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{Issuer: issuer, Audience: []string{audience}, RolesClaim: "ext.roles"}
}

// Zitadel accepts access tokens of type JWT of Zitadel. The audience is the id of the project; clients ask for it with
// the scope urn:zitadel:iam:org:project:id:PROJECT:aud. Roles are those of the project.
func Zitadel(issuer, projectID string) authn.VerifierConfig {
	return authn.VerifierConfig{
		Issuer:     issuer,
		Audience:   []string{projectID},
		RolesClaim: "urn:zitadel:iam:org:project:roles",
	}
}

// Kubernetes accepts service account tokens of a cluster that were projected for the audience. issuer is the
// --service-account-issuer of the API server. User.ID is "system:serviceaccount:NAMESPACE:NAME". The API server of most
// clusters gives its keys only to authenticated clients: jwks.Config.Client then sends the token of the pod.
func Kubernetes(issuer, audience string) authn.VerifierConfig {
	return authn.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Types: []string{"", "JWT"}}
}

// requireAudience keeps an empty list from disabling the check: NewVerifier refuses an empty string.
func requireAudience(cfg authn.VerifierConfig) authn.VerifierConfig {
	if len(cfg.Audience) == 0 {
		cfg.Audience = []string{""}
	}
	return cfg
}
